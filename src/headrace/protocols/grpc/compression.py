"""Messages that clients send compressed. What is sent to them is not.

https://github.com/grpc/grpc/blob/master/doc/compression.md
"""

from __future__ import annotations

import zlib

from headrace.domain.errors import Code, HeadraceError

TAKEN = ("gzip", "identity")
"""The codings of a message, as clients name them."""
ACCEPTED = b"gzip"
"""What clients are told."""
_GZIP = 16 + zlib.MAX_WBITS


def is_compressed(coding: bytes | None) -> bool:
    """Whether messages of a call with this coding may be. Raises ``UNSUPPORTED_ENCODING``."""
    name = (coding or b"identity").decode("latin-1").strip().lower()
    if name not in TAKEN:
        said = f"Messages in {name[:40]!r} are not taken here; send {' or '.join(TAKEN)}."
        raise HeadraceError(Code.UNSUPPORTED_ENCODING, said)
    return name == "gzip"


def decompressed(data: bytes, limit_bytes: int) -> bytes:
    """A message as it was before gzip. Raises ``INVALID_REQUEST``, and ``BODY_TOO_LARGE`` for one that is more than
    ``limit_bytes`` then."""
    parts = []
    room = limit_bytes + 1
    while data:
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(data, room))
        except zlib.error:
            raise HeadraceError(Code.INVALID_REQUEST, "A message is not gzip.") from None
        room -= len(parts[-1])
        if room <= 0:
            said = f"A message is longer than {limit_bytes} bytes."
            raise HeadraceError(Code.BODY_TOO_LARGE, said)
        if not member.eof:
            raise HeadraceError(Code.INVALID_REQUEST, "A message ends within its gzip.")
        data = member.unused_data
    return b"".join(parts)
