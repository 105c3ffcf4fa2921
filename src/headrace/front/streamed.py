"""The body of an HTTP/1.1 request that is handed on as it comes."""

from __future__ import annotations

from headrace.front.body import ChunkedBody, SizedBody
from headrace.front.connections import Connections
from headrace.front.http1_exchange import Http1Exchange
from headrace.front.refusal import Refusal

WINDOW_BYTES = 256 * 1024
"""Handed on before it is taken; then the connection is no longer read."""


class Streamed:
    """``close`` it in any case: what is not taken of it counts for the whole front."""

    __slots__ = ("_body", "_moved", "_shared", "_untaken", "exchange")

    def __init__(
        self, shared: Connections, exchange: Http1Exchange, body: SizedBody | ChunkedBody
    ) -> None:
        self.exchange = exchange
        self._shared = shared
        self._body = body
        self._untaken = 0
        self._moved = shared.now

    @property
    def room(self) -> bool:
        """Whether more may come."""
        return self._untaken < WINDOW_BYTES

    def receive(self, data: bytes) -> bytes | None:
        """Hand on what belongs to the body. What comes after it, or None: more is to come. Raises :class:`Refusal` 400
        or 503."""
        rest = self._body.feed(data)
        content = self._body.content
        piece = bytes(content)
        content.clear()
        self._moved = self._shared.now
        self._count(len(piece))
        if self._shared.arriving_bytes > self._shared.limits.arriving_bytes:
            raise Refusal(503, "too many large requests at once; try again soon")
        if piece:
            self.exchange.receive(piece)
        return rest

    def take(self, size: int) -> None:
        """So much of it is done with."""
        self._moved = self._shared.now
        self._count(-min(size, self._untaken))

    def late(self, now: float) -> bool:
        """Whether it stands still, and not because of us."""
        return self.room and now - self._moved > self._shared.limits.body_s

    def close(self) -> None:
        self._count(-self._untaken)

    def _count(self, size: int) -> None:
        self._untaken += size
        self._shared.arriving_bytes += size
