"""What a key looks like: ``hr_`` + its public id + ``_`` + its secret, in letters and digits.

The shape is for secret scanners (``hr_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}``) and for people: the id may be shown, and
a double click takes the whole. At rest there is only the SHA-256. A slow hash such as bcrypt is for secrets
that somebody could guess; the 256 random bits here cannot be, however fast a guess is, and every unknown key that
anybody sends would cost the server a tenth of a second.
"""

from __future__ import annotations

import secrets
import string
from hashlib import sha256
from typing import NamedTuple

PREFIX = "hr_"
ID_LENGTH = 12
SECRET_LENGTH = 43
"""Of 62 characters each: 256 bits."""
_ALPHABET = string.digits + string.ascii_letters


class NewKey(NamedTuple):
    """``text`` is what its owner gets, once."""

    id: str
    text: str


def new_key() -> NewKey:
    id = _random(ID_LENGTH)
    return NewKey(id, f"{PREFIX}{id}_{_random(SECRET_LENGTH)}")


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _random(length: int) -> str:
    return "".join([secrets.choice(_ALPHABET) for _ in range(length)])
