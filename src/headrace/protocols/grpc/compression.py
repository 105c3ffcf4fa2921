"""Messages that clients send compressed. What is sent to them is not.

https://github.com/grpc/grpc/blob/master/doc/compression.md
"""

from __future__ import annotations

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.inflating import GZIP, inflated

TAKEN = ("gzip", "identity")
"""The encodings of a message, as clients name them."""
ACCEPTED = b"gzip"
"""What clients are told."""


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
    return inflated(data, limit_bytes, GZIP, "A message")
