"""A request whose body is still on its way."""

from __future__ import annotations

from typing import cast

from headrace.front.body import ChunkedBody, OpenBody, SizedBody
from headrace.front.connections import Connections
from headrace.front.exchange import Head
from headrace.front.mapped_body import LARGE_BYTES, MappedBody
from headrace.front.refusal import Refusal

SLOWEST_BODY = 16 * 1024
"""Bytes per second below which a body must be complete within ``Limits.body_s``."""


class Arrival:
    """Head and incomplete body. ``close`` it in any case: its bytes count for the whole front."""

    __slots__ = ("_shared", "_since", "_taken", "body", "head", "moved")

    def __init__(
        self,
        shared: Connections,
        head: Head,
        body: SizedBody | MappedBody | ChunkedBody | OpenBody,
    ) -> None:
        self.head = head
        self.body = body
        self._shared = shared
        shared.arriving += 1
        self._since = self.moved = shared.now
        self._taken = 0

    def take(self, data: bytes) -> bytes | None:
        """What follows the body, or None: more is to come. Raises :class:`Refusal` 400, 413 or 503."""
        rest = self.body.feed(data)
        self.count(len(data), complete=rest is not None)
        return rest

    def count(self, size: int, *, complete: bool) -> None:
        """So many bytes more of it are here. Raises :class:`Refusal` 503."""
        self.moved = self._shared.now
        self._taken += size
        self._shared.arriving_bytes += size
        if not complete and self._shared.arriving_bytes > self._shared.limits.arriving_bytes:
            raise Refusal(503, "too many large requests at once; try again soon")

    def late(self, now: float) -> bool:
        """Whether the body stands still, or comes slower than ``SLOWEST_BODY``."""
        limit = self._shared.limits.body_s
        return now - self.moved > limit or now - self._since > limit + self._taken / SLOWEST_BODY

    def close(self) -> bytes:
        """It is over, which is said once: the body as far as it is here; of a long one a view, where its handler takes
        that."""
        self._shared.arriving -= 1
        self._shared.arriving_bytes -= self._taken
        self._taken = 0
        content = self.body.content
        maps = self._shared.maps
        viewed = isinstance(content, memoryview)
        if not viewed and len(content) >= LARGE_BYTES and maps is not None:
            viewed = maps(self.head)
        return cast(bytes, memoryview(content)) if viewed else bytes(content)
