"""A log's events as messages."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.event import (
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
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.native import is_plain


def event_message(event: Event, generation_id: str) -> pb.Event:
    """One event."""
    made = pb.Event(seq=event.seq, timestamp=event.timestamp, generation_id=generation_id)
    match event:
        case Token() if is_plain(event):
            made.token.text = event.text
            made.token.index = event.index  # a field that is set, even to its default: it has come
        case Token():
            made.token.CopyFrom(_token(event))
        case Progress():
            made.progress.CopyFrom(_progress(event))
        case Prompt():
            made.prompt.CopyFrom(pb.Prompt(role=event.role, content=event.content))
        case Finish():
            made.finish.CopyFrom(_finish(event))
        case Error():
            made.error.CopyFrom(
                pb.Error(code=event.code, message=event.message, retryable=event.retryable)
            )
    return made


def usage_message(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cached_tokens,
    )


def logprob_messages(entries: Sequence[TokenLogprob]) -> list[pb.Logprob]:
    return [
        pb.Logprob(
            token=entry.token,
            logprob=entry.logprob,
            utf8=bytes(entry.bytes),
            top=[
                pb.Logprob(token=token, logprob=logprob, utf8=bytes(raw))
                for token, logprob, raw in entry.top
            ],
        )
        for entry in entries
    ]


def _token(event: Token) -> pb.Token:
    return pb.Token(
        text=event.text,
        index=event.index,
        reasoning=event.reasoning,
        part=event.part,
        logprobs=logprob_messages(event.logprobs or ()),
        tool_calls=[_tool_call(call) for call in event.tool_calls or ()],
    )


def _tool_call(call: ToolCallDelta) -> pb.ToolCall:
    return pb.ToolCall(
        index=call.index, id=call.id or "", name=call.name or "", arguments=call.arguments
    )


def _progress(event: Progress) -> pb.Progress:
    return pb.Progress(
        phase=event.phase,
        position=event.position,
        eta_s=event.eta_s,
        done=event.done,
        total=event.total,
    )


def _finish(event: Finish) -> pb.Finish:
    reasons = event.reasons
    return pb.Finish(
        reason=reasons[0],
        usage=usage_message(event.usage),
        reasons=reasons if len(reasons) > 1 else (),
    )
