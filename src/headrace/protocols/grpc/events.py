"""A log's events as messages."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.errors import Code
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


class EventMessages:
    """The events of one log as serialized messages. One message is used again for all tokens that are
    nothing but text, as nearly all are: that takes a third of the time."""

    __slots__ = ("_generation_id", "_plain", "_token")

    def __init__(self, generation_id: str) -> None:
        self._generation_id = generation_id
        self._plain = pb.Event(generation_id=generation_id, token=pb.Token())
        self._token = self._plain.token

    def encode(self, event: Event) -> bytes:
        if type(event) is Token and is_plain(event):
            plain, token = self._plain, self._token
            plain.seq = event.seq
            plain.timestamp = event.timestamp
            token.text = event.text
            token.index = event.index
            return plain.SerializeToString()
        return self.message(event).SerializeToString()

    def message(self, event: Event) -> pb.Event:
        """One event, as a message of its own."""
        made = pb.Event(seq=event.seq, timestamp=event.timestamp, generation_id=self._generation_id)
        match event:
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
                    pb.Error(
                        code=event.code,
                        message=event.message,
                        retryable=event.retryable,
                        retry_after_s=event.retry_after_s,
                    )
                )
                if event.code == Code.INTERRUPTED:
                    made.error.resume.generation_id = self._generation_id
                    made.error.resume.after = event.seq - 1
        return made


def usage_message(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cached_tokens,
        limited_by=usage.limited_by or "",
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
