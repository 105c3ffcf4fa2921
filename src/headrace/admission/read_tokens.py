"""Read tokens: an ``EventSource`` cannot send headers, so what it may read stands in its URL.

A token is good for reading one generation for an hour. It says whose the generation is and until when, signed
with a secret of this server (HMAC-SHA256, RFC 2104), so nothing has to be kept of it and nothing looked up.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.domain.errors import Code, HeadraceError

LIFE_S = 3600
SECRET_BYTES = 32
MAX_LENGTH = 1024
"""Characters of a token that are looked at."""
_PREFIX = "rt_"


class _Claim(msgspec.Struct, frozen=True, gc=False, array_like=True):
    expires_at: int
    generation: str
    tenant: str


_decode = msgspec.msgpack.Decoder(_Claim).decode
_encode = msgspec.msgpack.Encoder().encode


class ReadToken(NamedTuple):
    """``expires_at``: Unix seconds."""

    token: str
    expires_at: int


class ReadTokens:
    """Makes and checks tokens with one secret. Times are Unix seconds."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, generation: str, tenant: str, now: float) -> ReadToken:
        """A token for a generation of this tenant's."""
        expires_at = int(now) + LIFE_S
        claim = _encode(_Claim(expires_at, generation, tenant))
        return ReadToken(_PREFIX + _text(self._sign(claim) + claim), expires_at)

    def tenant(self, token: str, generation: str, now: float) -> str:
        """Whose generation it is. Raises ``INVALID_API_KEY``: for a token that is not ours, that is too old,
        or that is for another generation."""
        raw = _bytes(token)
        size = sha256().digest_size
        signature, claim = raw[:size], raw[size:]
        if not hmac.compare_digest(signature, self._sign(claim)):
            raise _refused("is not one of this server's")
        found = _decode(claim)
        if found.expires_at <= now:
            raise _refused("has expired; ask for another one")
        if found.generation != generation:
            raise _refused("is for another generation")
        return found.tenant

    def _sign(self, claim: bytes) -> bytes:
        return hmac.digest(self._secret, claim, "sha256")


def kept_secret(path: Path) -> bytes:
    """The secret in a file that only its owner reads, made if it is not there. Raises ``STORE_FAILED``."""
    try:
        if path.exists() and len(found := path.read_bytes()) == SECRET_BYTES:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_bytes(SECRET_BYTES)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secret)
        new.replace(path)  # whole or not at all
    except OSError as error:
        text = f"The secret {path} can neither be read nor made: {error.strerror or error}."
        raise HeadraceError(Code.STORE_FAILED, text) from error
    return secret


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(token: str) -> bytes:
    """What a token says, undoubted yet; nothing where it says nothing."""
    if not token.startswith(_PREFIX) or len(token) > MAX_LENGTH or not token.isascii():
        return b""
    text = token[len(_PREFIX) :]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return b""


def _refused(why: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_API_KEY, f"The token {why}.")
