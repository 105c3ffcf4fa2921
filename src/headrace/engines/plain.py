"""What nearly every event and answer of an OpenAI-compatible engine is: one choice, nothing but text.

The types are so strict that to be decoded by them proves it, and nothing that is seldom there has to be
looked for. What they refuse, :mod:`headrace.engines.chunks` decodes: to that it must mean the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.domain.event import FinishReason, Usage

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoders raise, of JSON too."""


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Counted(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None

    def usage(self) -> Usage:
        """What was not said is 0."""
        details = self.prompt_tokens_details
        return Usage(
            self.prompt_tokens or 0,
            self.completion_tokens or 0,
            (details.cached_tokens or 0) if details is not None else 0,
        )


class PlainContent(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: Literal[""] | None = None
    reasoning: Literal[""] | None = None
    refusal: Literal[""] | None = None
    tool_calls: tuple[()] | None = None


class PlainPiece(msgspec.Struct, gc=False):
    delta: PlainContent
    index: int = 0
    text: Literal[""] | None = None
    finish_reason: Literal[""] | None = None
    logprobs: None = None
    token_ids: tuple[int, ...] | None = None


class PlainEvent(msgspec.Struct, gc=False):
    """A piece of text in the middle of a stream."""

    choices: tuple[PlainPiece]
    usage: None = None
    error: None = None


class PlainMessage(msgspec.Struct, gc=False):
    message: PlainContent
    finish_reason: FinishReason
    index: Literal[0] = 0
    delta: None = None
    text: Literal[""] | None = None
    logprobs: None = None
    token_ids: tuple[int, ...] | None = None
    stop_reason: int | None = None
    matched_stop: int | None = None


class PlainAnswer(msgspec.Struct, gc=False):
    """A whole answer that was counted."""

    choices: tuple[PlainMessage]
    usage: Counted
    error: None = None


decode_plain_event = msgspec.json.Decoder(PlainEvent).decode
decode_plain_answer = msgspec.json.Decoder(PlainAnswer).decode
