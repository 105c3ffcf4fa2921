"""The events of a generation's log: a closed union of five frozen values (DESIGN §9).

An event is ``seq`` (1, 2, 3 … without holes), a timestamp in float Unix seconds, and its payload's
fields. The generation's id is the log's, not each event's. ``array_like`` keeps the stored form
(msgpack) small; ``gc=False`` keeps events out of the garbage collector: they hold no cycles.
``end`` says how an event ends its log; None if it does not.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

Phase = Literal["queued", "prefill", "decode", "paused", "moved"]
End = Literal["finish", "error"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Tokens of one generation, all choices together. ``cached_tokens`` of the prompt came from a prefix cache.
    ``limited_by``: the limit of ours that ended the answer; None where it ended by itself or as its client wanted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    limited_by: str | None = None

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A piece of a tool call: ``id`` and ``name`` come with its first piece, ``arguments`` in parts."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class TokenLogprob(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One token's natural-log probability and its most likely alternatives ``(token, logprob, bytes)``.

    ``logprob`` is ``None`` where the engine does not know it (the first token of an echoed prompt).
    """

    token: str
    logprob: float | None
    bytes: tuple[int, ...] = ()
    top: tuple[tuple[str, float, tuple[int, ...]], ...] = ()


class Token(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="t"):
    """Text that became visible. ``index`` is the choice when ``n > 1``; ``part`` counts the pieces of a
    text over 4 KiB that was split (0 where it was not)."""

    end: ClassVar[End | None] = None
    seq: int
    timestamp: float
    text: str
    index: int = 0
    reasoning: bool = False
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    part: int = 0


class Progress(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="p"):
    """Where the generation stands. ``position`` in the queue from 1; ``done`` of ``total`` prompt tokens."""

    end: ClassVar[End | None] = None
    seq: int
    timestamp: float
    phase: Phase
    position: int | None = None
    eta_s: float | None = None
    done: int | None = None
    total: int | None = None


class Prompt(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="m"):
    """A message that was added to the running generation."""

    end: ClassVar[End | None] = None
    seq: int
    timestamp: float
    role: str
    content: str


class Finish(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="f"):
    """The good end of a log. ``reasons`` has one entry a choice, ``reasons[0]`` is *the* reason. ``stop``: the
    stop string that ended the first choice, where the engine says it."""

    end: ClassVar[End | None] = "finish"
    seq: int
    timestamp: float
    reasons: tuple[FinishReason, ...]
    usage: Usage
    stop: str | None = None

    def reason(self, index: int) -> FinishReason:
        """Why a choice ended: its own reason, or *the* reason where the engine gave only one."""
        reasons = self.reasons
        return reasons[index if index < len(reasons) else 0]


class Error(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="e"):
    """The other end of a log; ``code`` is a value of :class:`~headrace.domain.errors.Code`. ``retry_after_s``: after
    how long the same request may be worth sending again, where that is known; logs of old do not say."""

    end: ClassVar[End | None] = "error"
    seq: int
    timestamp: float
    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None


Event = Token | Progress | Prompt | Finish | Error
TYPE_NAMES: dict[type[Any], str] = {
    Token: "token",
    Progress: "progress",
    Prompt: "prompt",
    Finish: "finish",
    Error: "error",
}
EVENT_TYPES: frozenset[str] = frozenset(TYPE_NAMES.values())
MAX_TEXT_BYTES = 4096
"""Text of one token event in UTF-8; longer text is split at code points into further events."""


def is_terminal(event: Event) -> bool:
    """Whether this event ends its log."""
    return event.end is not None
