"""How large a single request may be."""

from __future__ import annotations

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Cap, Request

RESERVE_TOKENS = 4096


class Sizes(msgspec.Struct, frozen=True):
    """None: as large as it likes. ``reserve_tokens``: for an answer whose request does not say how long it may be,
    where tokens are limited."""

    max_prompt_tokens: int | None = None
    max_tokens: int | None = None
    max_n: int | None = None
    reserve_tokens: int = RESERVE_TOKENS

    def check(self, request: Request) -> Request:
        """The request; where it does not say how long its answer may be, with the server's own cap. Raises
        ``INVALID_REQUEST`` naming the field."""
        sampling = request.sampling
        if self.max_n is not None and sampling.n > self.max_n:
            raise _too_many("n", sampling.n, self.max_n)
        most = self.max_tokens
        if most is None:
            return request
        if sampling.max_tokens is None:
            return msgspec.structs.replace(request, cap=Cap(most, "max_tokens"))
        if sampling.max_tokens > most:
            raise _too_many("max_tokens", sampling.max_tokens, most)
        return request

    def check_prompt(self, tokens: int) -> None:
        """Raise ``CONTEXT_LENGTH`` for a prompt of about so many tokens."""
        most = self.max_prompt_tokens
        if most is not None and tokens > most:
            text = f"The prompt is about {tokens} tokens; this server takes {most} at most. Make it shorter."
            raise HeadraceError(Code.CONTEXT_LENGTH, text)


def _too_many(field: str, asked: int, most: int) -> HeadraceError:
    text = f"`{field}` is {asked}; this server allows {most} at most."
    return HeadraceError(Code.INVALID_REQUEST, text, param=field)
