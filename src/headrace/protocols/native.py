"""The native form of events (DESIGN §9): what the log says, as it says it."""

from __future__ import annotations

from typing import Any

from headrace.domain.event import (
    TYPE_NAMES,
    Error,
    Event,
    Finish,
    Progress,
    Prompt,
    Token,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from headrace.protocols.encoder import EventEncoder, Framing, encode_json
from headrace.protocols.port import Generation

OPTIONAL_EVENTS = ("progress", "prompt")
"""Events that a client can leave out (native) or ask for (OpenAI); the others always come."""


_TEXT = (
    b'{"seq":%d,"type":"token","timestamp":%b,"generation":"GENERATION",'
    b'"payload":{"text":%b,"index":%d}}'
)


class NativeEncoder(EventEncoder):
    """All events of a log; the wire's options can leave out ``progress`` and ``prompt``."""

    __slots__ = ("_generation", "_hidden", "_text")

    def __init__(self, generation: Generation, options: dict[str, Any], framing: Framing) -> None:
        super().__init__(framing)
        self._generation = generation.id
        self._hidden = {name for name in OPTIONAL_EVENTS if not options.get(name, True)}
        self._text = _TEXT.replace(b"GENERATION", generation.id.encode())

    def _event(self, event: Event) -> bytes:
        if type(event) is Token and is_plain(event):
            seq = event.seq
            text = encode_json(event.text)
            data = self._text % (seq, encode_json(event.timestamp), text, event.index)
            return self._framing.message(seq, data, b"token")
        name = TYPE_NAMES[type(event)]
        if name in self._hidden:
            return b""
        data = native_event(event, self._generation)
        return self._framing.message(event.seq, data, name.encode())


def is_plain(event: Token) -> bool:
    """Whether a token has nothing but its text: nearly all are."""
    return (
        event.logprobs is None
        and event.tool_calls is None
        and not event.reasoning
        and not event.part
    )


def native_event(event: Event, generation: str) -> bytes:
    """One event as JSON."""
    match event:
        case Token():
            name, payload = "token", encode_json(_token(event))
        case Progress():
            name, payload = "progress", encode_json(_progress(event))
        case Prompt():
            name, payload = (
                "prompt",
                encode_json({"role": event.role, "content": event.content}),
            )
        case Finish():
            name, payload = "finish", encode_json(_finish(event))
        case Error():
            name, payload = "error", encode_json(_error(event))
    return b'{"seq":%d,"type":"%b","timestamp":%b,"generation":"%b","payload":%b}' % (
        event.seq,
        name.encode(),
        encode_json(event.timestamp),
        generation.encode(),
        payload,
    )


def usage_payload(usage: Usage) -> dict[str, Any]:
    """Usage as the native answers have it."""
    payload: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    if usage.limited_by is not None:
        payload["limited_by"] = usage.limited_by
    return payload


def _token(event: Token) -> dict[str, Any]:
    payload: dict[str, Any] = {"text": event.text, "index": event.index}
    if event.reasoning:
        payload["reasoning"] = True
    if event.logprobs is not None:
        payload["logprobs"] = [_logprob(entry) for entry in event.logprobs]
    if event.tool_calls is not None:
        payload["tool_calls"] = [_tool_call(call) for call in event.tool_calls]
    if event.part:
        payload["part"] = event.part
    return payload


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    return {
        "token": entry.token,
        "logprob": entry.logprob,
        "bytes": entry.bytes,
        "top": [
            {"token": token, "logprob": logprob, "bytes": raw} for token, logprob, raw in entry.top
        ],
    }


def _tool_call(call: ToolCallDelta) -> dict[str, Any]:
    started = {"id": call.id, "name": call.name} if call.id is not None else {}
    return {"index": call.index, **started, "arguments": call.arguments}


def _progress(event: Progress) -> dict[str, Any]:
    fields = {
        "phase": event.phase,
        "position": event.position,
        "eta_s": event.eta_s,
        "done": event.done,
        "total": event.total,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _finish(event: Finish) -> dict[str, Any]:
    payload: dict[str, Any] = {"reason": event.reasons[0], "usage": usage_payload(event.usage)}
    if len(event.reasons) > 1:
        payload["reasons"] = event.reasons
    return payload


def _error(event: Error) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "code": event.code,
        "message": event.message,
        "retryable": event.retryable,
    }
    if event.retry_after_s is not None:
        payload["retry_after_s"] = event.retry_after_s
    return payload
