"""Ids of generations: ``gen_`` + ULID (https://github.com/ulid/spec), so they sort by time.

The other prefixes carry the same ULID, so any of them finds the log (DESIGN §9).
"""

from __future__ import annotations

import os
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_PREFIXES = ("gen_", "chatcmpl-", "cmpl-", "resp_", "msg_")
ULID_LENGTH = 26


def ulid(now_s: float, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """A new ULID of 26 characters: 48 bits of milliseconds, 80 random bits."""
    value = (int(now_s * 1000) << 80) | int.from_bytes(entropy(10), "big")
    pairs = [_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)]
    return "".join(pairs)


def find_ulid(any_id: str) -> str | None:
    """The ULID inside ``gen_…``, ``chatcmpl-…``, ``cmpl-…``, ``resp_…`` or ``msg_…``; None for anything else."""
    for prefix in _PREFIXES:
        if any_id.startswith(prefix):
            tail = any_id[len(prefix) :]
            return tail if len(tail) == ULID_LENGTH and tail.isalnum() else None
    return None
