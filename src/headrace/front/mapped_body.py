"""A long body in memory of its own, to which the kernel copies it: nothing is read into pieces and put together.

For requests whose handler takes any buffer for a body. Its memory is the kernel's to give: pages that nothing has come
for do not exist, so whoever names a length and sends nothing costs nothing. One byte costs a huge page only where few
bodies arrive; else those are for who has sent as much.
"""

from __future__ import annotations

import asyncio
import mmap
from typing import Any

LARGE_BYTES = 128 * 1024
"""From here on that is worth it."""
_HUGE_PAGES = hasattr(mmap, "MADV_HUGEPAGE")
HUGE_PAGE_BYTES = 2 * 1024 * 1024
FEW = 64
"""So many bodies that arrive may take more than is counted of them, a huge page each. Small pages take a microsecond or
two each, which is most of what a copy takes."""


class MappedBody:
    """A body of ``length`` bytes, as :class:`~headrace.front.body.SizedBody`. ``content``: a view of its memory, which
    lives as long as anything that looks at it. ``huge``: its pages are at once. Raises ``OSError`` where there is
    no room for it."""

    __slots__ = ("_at", "_memory", "_small_pages", "content")

    def __init__(self, length: int, *, huge: bool) -> None:
        self._memory = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._small_pages = _HUGE_PAGES and length >= HUGE_PAGE_BYTES
        if huge:
            self._take_huge_pages()
        self.content = memoryview(self._memory)
        self._at = 0

    @property
    def free(self) -> memoryview:
        """Where what is to come belongs."""
        return self.content[self._at :]

    def feed(self, data: bytes) -> bytes | None:
        """Take of ``data`` what belongs to the body. What comes after it, or None: more is to come."""
        size = min(len(data), len(self.content) - self._at)
        self.content[self._at : self._at + size] = memoryview(data)[:size]
        return data[size:] if self.came(size) else None

    def came(self, size: int) -> bool:
        """So many bytes are there. Whether that was the last of them."""
        self._at += size
        if self._at >= HUGE_PAGE_BYTES:
            self._take_huge_pages()
        return self._at == len(self.content)

    def _take_huge_pages(self) -> None:
        if self._small_pages:
            self._small_pages = False
            self._memory.madvise(mmap.MADV_HUGEPAGE)


class Filling(asyncio.BufferedProtocol):
    """What a connection's transport talks to while a body comes: all but the bytes is handed on to the connection,
    whose ``came`` hears of those."""

    def __init__(self, connection: Any, body: MappedBody) -> None:
        self._connection = connection
        self._body: MappedBody | None = body

    def close(self) -> None:
        """Let go of the body: uvloop's transport keeps the last protocol of this kind that it had."""
        self._body = None

    def get_buffer(self, sizehint: int) -> memoryview:
        assert self._body is not None
        return self._body.free

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.came(nbytes)

    def eof_received(self) -> bool | None:
        over: bool | None = self._connection.eof_received()
        return over

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
