"""A long body in memory of its own, to which the kernel copies it: nothing is read into pieces and put together.

For requests whose handler takes any buffer for a body. Its memory is the kernel's to give: pages that nothing has come
for do not exist, so whoever names a length and sends nothing costs nothing.
"""

from __future__ import annotations

import asyncio
import mmap
from typing import Any

LARGE_BYTES = 128 * 1024
"""From here on that is worth it."""
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)
_HUGE_PAGE_BYTES = 2 * 1024 * 1024


class MappedBody:
    """A body of ``length`` bytes, as :class:`~headrace.front.body.SizedBody`. ``content``: a view of its memory, which
    lives as long as anything that looks at it. Raises ``OSError`` where there is no room for it."""

    __slots__ = ("_at", "content")

    def __init__(self, length: int) -> None:
        memory = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if _HUGE_PAGES is not None and length >= _HUGE_PAGE_BYTES:
            memory.madvise(_HUGE_PAGES)
        self.content = memoryview(memory)
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
        return self._at == len(self.content)


class Filling(asyncio.BufferedProtocol):
    """What a connection's transport talks to while a body comes: all but the bytes is handed on to the connection,
    whose ``came`` hears of those."""

    def __init__(self, connection: Any, body: MappedBody) -> None:
        self._connection = connection
        self._body = body

    def get_buffer(self, sizehint: int) -> memoryview:
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
