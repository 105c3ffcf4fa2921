"""What a client may take from the front: every bound of the data path, in one place."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds per request, per connection and per front. Bytes, counts and seconds."""

    header_bytes: int = 64 * 1024
    """Request line and header fields together; more is 431."""
    headers: int = 100
    """Header fields of a request; more is 431."""
    target_bytes: int = 16 * 1024
    """Length of the request target; more is 414."""
    body_bytes: int = 32 * 1024 * 1024
    """Length of a request body; more is 413, as early as ``content-length`` tells."""
    arriving_bytes: int = 512 * 1024 * 1024
    """All incomplete request bodies together; more is 503."""
    connections: int = 10_000
    """Open connections; one more is answered 503 and closed."""
    header_s: float = 10.0
    """From the first byte of a request to the end of its headers; longer is 408."""
    body_s: float = 30.0
    """Between two pieces of a body, and for the whole of a body that comes slower than 16 KiB/s; 408."""
    idle_s: float = 75.0
    """A connection without a request is closed after this."""
    stall_s: float = 60.0
    """A client that takes no byte of what waits for it for this long is cut."""
    linger_s: float = 5.0
    """How long what a refused client still sends is thrown away, so that it sees the refusal."""
    streams: int = 128
    """Concurrent exchanges of an HTTP/2 connection."""
