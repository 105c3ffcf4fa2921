"""Ids of generations: ``gen_`` + ULID (https://github.com/ulid/spec), so they sort by time.

The other prefixes carry the same ULID, so any of them finds the log (DESIGN §9).
"""

from __future__ import annotations

import os
from base64 import b32encode
from collections.abc import Callable

_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET)
_PREFIXES = ("gen_", "chatcmpl-", "cmpl-", "resp_", "msg_")
ULID_LENGTH = 26


def ulid(now_s: float, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """A new ULID of 26 characters: 48 bits of milliseconds, 80 random bits."""
    # 128 bits are 26 characters of 5 bits with two zero bits in front; base32 wants whole 40-bit groups,
    # so the time is padded to 80 bits and its leading zeros are cut off.
    value = int(now_s * 1000).to_bytes(10, "big") + entropy(10)
    return b32encode(value)[6:].translate(_CROCKFORD).decode()


def find_ulid(any_id: str) -> str | None:
    """The ULID inside ``gen_…``, ``chatcmpl-…``, ``cmpl-…``, ``resp_…`` or ``msg_…``; None for anything else."""
    for prefix in _PREFIXES:
        if any_id.startswith(prefix):
            tail = any_id[len(prefix) :]
            return tail if len(tail) == ULID_LENGTH and tail.isalnum() else None
    return None
