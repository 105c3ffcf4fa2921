"""What an engine hands over while it computes: raw, before hooks and before it has a ``seq``."""

from __future__ import annotations

import msgspec

from headrace.domain.event import FinishReason, TokenLogprob, ToolCallDelta, Usage
from headrace.domain.request import Message


class Delta(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """New output of one choice. ``token_ids``: the engine's own ids of exactly these tokens, where it
    says them; ``text`` may be empty while an engine holds text back that could become a stop string.
    ``prompt``: no output at all, but where this message came in; among stored deltas only."""

    text: str
    index: int = 0
    token_ids: tuple[int, ...] = ()
    reasoning: bool = False
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    prompt: Message | None = None


class Prefix(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Output that one choice already has, to go on from: by ``token_ids``, never by re-tokenised text.
    ``tokens``: how many tokens it is where the engine did not say their ids (an estimate: its deltas).
    ``calls``: tool calls told so far, each in one piece."""

    text: str
    token_ids: tuple[int, ...]
    tokens: int = 0
    calls: tuple[ToolCallDelta, ...] = ()


class Turn(msgspec.Struct, frozen=True, gc=False):
    """A part of an answer that a prompt in mid-stream closed: what was said in it (it may be nothing), and
    the message behind it."""

    said: Prefix
    message: Message


class Outcome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How an engine's run ended well: one reason a choice, what was counted, and the stop string that ended
    the first choice, where the engine says it.
    ``usage`` of a continued run counts only what this run produced; its ``prompt_tokens`` include the prefix."""

    reasons: tuple[FinishReason, ...]
    usage: Usage
    stop: str | None = None
