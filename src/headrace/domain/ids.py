"""Ids of generations: ``gen_`` + ULID (https://github.com/ulid/spec), so they sort by time.

The other prefixes carry the same ULID, so any of them finds the log (DESIGN §9).
"""

from __future__ import annotations

import os
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_CHARACTER_OF_BYTE = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
_PREFIXES = ("gen_", "chatcmpl-", "cmpl-", "resp_", "msg_")
ULID_LENGTH = 26


def ulid(now_s: float, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """A new ULID of 26 characters: 48 bits of milliseconds, 80 random bits."""
    now_ms = int(now_s * 1000)
    return (
        _PAIRS[now_ms >> 40 & 1023]
        + _PAIRS[now_ms >> 30 & 1023]
        + _PAIRS[now_ms >> 20 & 1023]
        + _PAIRS[now_ms >> 10 & 1023]
        + _PAIRS[now_ms & 1023]
        + entropy(16).translate(_CHARACTER_OF_BYTE).decode()  # 5 bits of each byte
    )


def find_ulid(any_id: str) -> str | None:
    """The ULID inside ``gen_…``, ``chatcmpl-…``, ``cmpl-…``, ``resp_…`` or ``msg_…``; None for anything else."""
    for prefix in _PREFIXES:
        if any_id.startswith(prefix):
            tail = any_id[len(prefix) :]
            return tail if len(tail) == ULID_LENGTH and tail.isalnum() else None
    return None
