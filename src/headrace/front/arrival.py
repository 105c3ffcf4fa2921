"""A request whose body is still on its way."""

from __future__ import annotations

from headrace.front.body import ChunkedBody, SizedBody
from headrace.front.connections import Connections
from headrace.front.head import CHUNKED
from headrace.front.refusal import Refusal
from headrace.front.target import RequestLine

SLOWEST_BODY = 16 * 1024
"""Bytes per second below which a body must be complete within ``Limits.body_s``."""


class Arrival:
    """Head and incomplete body. ``close`` it in any case: its bytes count for the whole front."""

    __slots__ = ("_body", "_shared", "_since", "_taken", "headers", "line")

    def __init__(
        self,
        shared: Connections,
        line: RequestLine,
        headers: list[tuple[bytes, bytes]],
        length: int,
    ) -> None:
        self.line = line
        self.headers = headers
        self._shared = shared
        self._since = shared.now
        self._taken = 0
        self._body: SizedBody | ChunkedBody = (
            ChunkedBody(shared.limits.body_bytes) if length == CHUNKED else SizedBody(length)
        )

    def take(self, data: bytes) -> bytes | None:
        """What follows the body, or None: more is to come. Raises :class:`Refusal`."""
        rest = self._body.feed(data)
        self._taken += len(data)
        self._shared.arriving_bytes += len(data)
        if rest is None and self._shared.arriving_bytes > self._shared.limits.arriving_bytes:
            raise Refusal(503, "too many large requests at once; try again soon")
        return rest

    def late(self, now: float) -> bool:
        """Whether the body comes slower than ``SLOWEST_BODY``."""
        return now - self._since > self._shared.limits.body_s + self._taken / SLOWEST_BODY

    def close(self) -> bytes:
        """The body as far as it is here."""
        self._shared.arriving_bytes -= self._taken
        self._taken = 0
        return bytes(self._body.content)
