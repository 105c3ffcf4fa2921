"""What clients send compressed, as it was before."""

from __future__ import annotations

import zlib

from headrace.domain.errors import Code, HeadraceError

GZIP = 16 + zlib.MAX_WBITS
ANY = 32 + zlib.MAX_WBITS
"""gzip, or zlib, which HTTP calls deflate (RFC 9110 §8.4.1)."""


def inflated(data: bytes, limit_bytes: int, form: int, what: str) -> bytes:
    """One whole stream, which is all of ``data``; nothing is nothing. ``what``: its name in messages. Raises
    ``INVALID_REQUEST``, and ``BODY_TOO_LARGE`` for what is more than ``limit_bytes`` then."""
    if not data:
        return data
    stream = zlib.decompressobj(form)
    try:
        message = stream.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise HeadraceError(Code.INVALID_REQUEST, f"{what} is not gzip.") from None
    if len(message) > limit_bytes:
        said = f"What was compressed is longer than the {limit_bytes} bytes that are left for it."
        raise HeadraceError(Code.BODY_TOO_LARGE, said)
    if not stream.eof or stream.unused_data:
        said = f"{what} is not one gzip, whole and alone."
        raise HeadraceError(Code.INVALID_REQUEST, said)
    return message
