"""Messages that clients send compressed. What is sent to them is not.

https://github.com/grpc/grpc/blob/master/doc/compression.md
"""

from __future__ import annotations

import zlib

from headrace.domain.errors import Code, HeadraceError

TAKEN = ("gzip", "identity")
"""The encodings of a message, as clients name them."""
ACCEPTED = b"gzip"
"""What clients are told."""
_GZIP = 16 + zlib.MAX_WBITS


def is_compressed(encoding: bytes | None) -> bool:
    """Whether messages of a call with this encoding may be. Raises ``UNSUPPORTED_ENCODING``."""
    name = (encoding or b"identity").decode("latin-1").strip().lower()
    if name not in TAKEN:
        said = f"Messages in {name[:40]!r} are not taken here; send {' or '.join(TAKEN)}."
        raise HeadraceError(Code.UNSUPPORTED_ENCODING, said)
    return name == "gzip"


def decompressed(data: bytes, limit_bytes: int) -> bytes:
    """A message as it was before gzip; an empty one is always empty. Raises ``INVALID_REQUEST``, and
    ``BODY_TOO_LARGE`` for one that is more than ``limit_bytes`` then."""
    if not data:
        return data
    gzip = zlib.decompressobj(_GZIP)
    try:
        message = gzip.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise HeadraceError(Code.INVALID_REQUEST, "A message is not gzip.") from None
    if len(message) > limit_bytes:
        said = f"What was compressed is longer than the {limit_bytes} bytes that are left for it."
        raise HeadraceError(Code.BODY_TOO_LARGE, said)
    if not gzip.eof or gzip.unused_data:
        raise HeadraceError(Code.INVALID_REQUEST, "A message is not one gzip, whole and alone.")
    return message
