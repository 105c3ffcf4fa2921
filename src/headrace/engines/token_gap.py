"""Token ids that llama.cpp did not say.

A character may span several tokens. llama.cpp then sends one chunk when the character is complete, with
the id of its last token only. What the ids before it were follows from their bytes: they are known from
the text, and each of them is a token that is not valid UTF-8 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class TokenGaps:
    """Finds missing ids with ``partial_tokens``: bytes → id of all tokens that are not valid UTF-8 alone."""

    def __init__(self, partial_tokens: Mapping[bytes, int]) -> None:
        self._ids = dict(partial_tokens)
        self._bytes = {token: raw for raw, token in partial_tokens.items()}
        self._longest = max(map(len, self._ids), default=0)

    def find(self, raw: bytes, at: int, last: int, missing: int) -> tuple[tuple[int, ...], int]:
        """The ``missing`` ids before ``last`` in ``raw[at:]``, and where ``last`` ends.

        The tokens need not begin at ``at``: text of tokens whose ids were said may come first. Without
        a split into ``missing`` tokens (the model made bytes that are no character, so the text says
        U+FFFD) any tokens that spell the text: going on from them is going on from what was
        delivered. Empty where not even those exist.
        """
        ending = self._bytes.get(last)
        if ending is not None:
            end = raw.find(ending, at)
            while end >= 0:
                for start in (at, *range(end - 1, at, -1)):
                    inside = raw[start] & 0xC0 == 0x80  # what was said before is whole characters
                    found = None if inside else self._split(raw[start:end], missing)
                    if found is not None:
                        return found, end + len(ending)
                end = raw.find(ending, end + 1)
        end = raw.rfind(_REPLACEMENT, at) + len(_REPLACEMENT)
        return (self._spell(raw[at:end]), end) if end > at + 2 else ((), at)

    def _split(self, raw: bytes, count: int) -> tuple[int, ...] | None:
        """``raw`` as exactly ``count`` partial tokens, the longest first."""
        ids, longest = self._ids, self._longest

        @cache
        def rest(at: int, left: int) -> tuple[int, ...] | None:
            if left == 0 or at == len(raw):
                return () if left == 0 and at == len(raw) else None
            for end in range(min(len(raw), at + longest), at, -1):
                token = ids.get(raw[at:end])
                if token is not None:
                    after = rest(end, left - 1)
                    if after is not None:
                        return (token, *after)
            return None

        if not count <= len(raw) <= count * longest:
            return None
        return rest(0, count)

    def _spell(self, raw: bytes) -> tuple[int, ...]:
        """``raw`` as few partial tokens as a greedy look finds; empty if it cannot be spelled."""
        found: list[int] = []
        at = 0
        while at < len(raw):
            for end in range(min(len(raw), at + self._longest), at, -1):
                token = self._ids.get(raw[at:end])
                if token is not None:
                    found.append(token)
                    at = end
                    break
            else:
                return ()
        return tuple(found)
