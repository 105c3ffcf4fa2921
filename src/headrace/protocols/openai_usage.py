"""Token counts as OpenAI's answers have them."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from headrace.domain.event import Usage


class PromptTokensDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct, frozen=True, gc=False):
    """Engines do not count reasoning tokens apart, so they are among ``completion_tokens`` only."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(msgspec.Struct, frozen=True, gc=False):
    """``limited_by``: the limit of this server that ended the answer; only there where one did."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    limited_by: str | UnsetType = UNSET


_NO_DETAILS = CompletionTokensDetails()
USAGE = (
    b'{"prompt_tokens":%%d,"completion_tokens":%%d,"total_tokens":%%d,'
    b'"prompt_tokens_details":{"cached_tokens":%%d,"audio_tokens":0},"completion_tokens_details":%b}'
    % msgspec.json.encode(_NO_DETAILS)
)
"""A :class:`CompletionUsage` of these four numbers."""


def completion_usage(usage: Usage) -> CompletionUsage:
    """The counts of a ``finish`` event."""
    return CompletionUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        PromptTokensDetails(usage.cached_tokens),
        _NO_DETAILS,
        usage.limited_by or UNSET,
    )


def usage_json(usage: Usage) -> bytes:
    """The same as JSON, mostly without the structs between."""
    if usage.limited_by is not None:
        return msgspec.json.encode(completion_usage(usage))
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return USAGE % (prompt, completion, prompt + completion, usage.cached_tokens)
