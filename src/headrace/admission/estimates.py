"""What is learned of one model from how its generations end: how many tokens a text is, how long answers get, how
fast they come. So a reservation needs no question to the engine; what it got wrong is put right when it is settled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from headrace.domain.request import ImagePart, Request

MESSAGE_TOKENS = 4
"""What a chat's template puts around a message, about."""
IMAGE_TOKENS = 576
"""Of an image, about: 24 × 24 patches, as CLIP-based models have it."""
_FIRST_BYTES, _FIRST_TOKENS = 4096.0, 1024.0
"""What was seen before anything was: four bytes a token."""
_LEAST_RATIO, _GREATEST_RATIO = 1 / 16, 1.0
_KEPT = 0.98
"""Of what was seen before, with each prompt that is seen."""


MAX_TENANTS = 1000
"""Whose prompts' share in caches is known; above, all are forgotten."""


class Size(msgspec.Struct, frozen=True, gc=False):
    """Of a prompt. ``text_bytes``: in UTF-8; ``tokens``: what is there beside its text, or was given as tokens."""

    text_bytes: int
    tokens: int


class Estimates:
    """``likely``: output tokens of a choice that few answers exceed: the mean and four times the mean deviation, as
    TCP finds its timeout (RFC 6298). ``token_s``: seconds per output token of one generation."""

    __slots__ = (
        "_bytes",
        "_cached",
        "_deviation",
        "_mean",
        "_ratio",
        "_tokens",
        "likely",
        "token_s",
    )

    def __init__(self) -> None:
        self._bytes = _FIRST_BYTES
        self._tokens = _FIRST_TOKENS
        self._ratio = _FIRST_TOKENS / _FIRST_BYTES
        self._cached: dict[str, float] = {}
        self._mean = 128.0
        self._deviation = 96.0
        self.likely = 512
        self.token_s = 0.02

    def prompt_tokens(self, size: Size) -> int:
        """How many tokens a prompt is, about; exactly if it has no text."""
        return size.tokens + math.ceil(size.text_bytes * self._ratio)

    def learn_prompt(self, size: Size, tokens: int) -> None:
        """A prompt of this size was ``tokens`` long."""
        if size.text_bytes and tokens >= size.tokens:
            self._bytes = seen = self._bytes * _KEPT + size.text_bytes
            self._tokens = self._tokens * _KEPT + tokens - size.tokens
            ratio = self._tokens / seen
            if ratio < _LEAST_RATIO:
                ratio = _LEAST_RATIO
            self._ratio = ratio if ratio < _GREATEST_RATIO else _GREATEST_RATIO

    def cached_tokens(self, tenant: str, prompt_tokens: int) -> int:
        """How many of a prompt of this tenant's a cache will have, as it had of those before; 0 while none was seen."""
        return int(self._cached.get(tenant, 0.0) * prompt_tokens)

    def learn_cached(self, tenant: str, prompt_tokens: int, cached_tokens: int) -> None:
        """Of a prompt of this tenant's a cache had so many tokens."""
        share = min(max(cached_tokens / prompt_tokens, 0.0), 1.0)
        known = self._cached.get(tenant, share)
        if len(self._cached) >= MAX_TENANTS and tenant not in self._cached:
            self._cached.clear()
        self._cached[tenant] = known + (share - known) / 8

    def learn_answer(self, tokens: int, choices: int, took_s: float) -> None:
        """An answer that ended by itself had so many tokens in all its choices together."""
        off = tokens / choices - self._mean
        self._mean = mean = self._mean + off / 32
        self._deviation += ((off if off > 0.0 else -off) - self._deviation) / 16
        self.likely = int(mean + 4 * self._deviation) + 1
        if 0.0 < took_s < 86_400.0:
            self.token_s += (took_s / tokens - self.token_s) / 16


def size_of(request: Request) -> Size:
    """Of a request's prompt, all prompts together."""
    text_bytes = 0
    tokens = MESSAGE_TOKENS * len(request.messages)
    for message in request.messages:
        content = message.content
        if type(content) is str:
            text_bytes += len(content) if content.isascii() else utf8_bytes(content)
        elif content:
            for part in content:
                if isinstance(part, ImagePart):
                    tokens += IMAGE_TOKENS
                elif not isinstance(part, str):
                    text_bytes += utf8_bytes(part.text)
        if message.tool_calls is not None:
            text_bytes += len(str(message.tool_calls))
    for prompt in request.prompts:
        size = input_size(prompt)
        text_bytes += size.text_bytes
        tokens += size.tokens
    if request.tools is not None:
        text_bytes += len(str(request.tools))
    return Size(text_bytes, tokens)


def input_size(text: str | Sequence[int]) -> Size:
    """Of a text or token ids."""
    return Size(utf8_bytes(text), 0) if isinstance(text, str) else Size(0, len(text))


def utf8_bytes(text: str) -> int:
    """How long a text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
