"""Ids of generations: ``gen_`` + ULID (https://github.com/ulid/spec), so they sort by time.

The other prefixes carry the same ULID, so any of them finds the log (DESIGN §9).
"""

from __future__ import annotations

import os
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_CHARACTER_OF_BYTE = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
_COUNT_LIMIT = (1 << 20) - 1
_PREFIXES = ("gen_", "chatcmpl-", "cmpl-", "resp_", "msg_")
ULID_LENGTH = 26


class Ulids:
    """Gives ULIDs of 26 characters: 48 bits of milliseconds, 80 random bits. Within a millisecond the last
    20 of these count on, as the specification has it for ids that sort; the others are drawn anew each
    millisecond, since asking the kernel for every id would cost more than the id."""

    __slots__ = ("_beginning", "_count", "_entropy", "_now_ms")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._now_ms = -1
        self._beginning = ""
        self._count = 0

    def new(self, now_s: float) -> str:
        """An id of the Unix time ``now_s``. Never one that was given before."""
        now_ms = int(now_s * 1000)
        if now_ms != self._now_ms or self._count >= _COUNT_LIMIT:
            self._begin(now_ms)
        count = self._count = self._count + 1
        return self._beginning + _PAIRS[count >> 10] + _PAIRS[count & 1023]

    def _begin(self, now_ms: int) -> None:
        self._now_ms = now_ms
        random = self._entropy(16)
        self._beginning = "".join(
            (
                _PAIRS[now_ms >> 40 & 1023],
                _PAIRS[now_ms >> 30 & 1023],
                _PAIRS[now_ms >> 20 & 1023],
                _PAIRS[now_ms >> 10 & 1023],
                _PAIRS[now_ms & 1023],
                random[:12].translate(_CHARACTER_OF_BYTE).decode(),  # 5 bits of each byte
            )
        )
        # Half of the room for counting on, so that a millisecond never runs out of it.
        self._count = int.from_bytes(random[12:15], "big") & _COUNT_LIMIT // 2


def find_ulid(any_id: str) -> str | None:
    """The ULID inside ``gen_…``, ``chatcmpl-…``, ``cmpl-…``, ``resp_…`` or ``msg_…``; None for anything else."""
    for prefix in _PREFIXES:
        if any_id.startswith(prefix):
            tail = any_id[len(prefix) :]
            return tail if len(tail) == ULID_LENGTH and tail.isalnum() else None
    return None
