"""A part of shared memory under a name that its tenant gave it."""

from __future__ import annotations

import mmap
import os
from typing import NoReturn

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.memory import Span
from headrace.shared_memory.pages import Pages
from headrace.shared_memory.segment import Segment


class Region:
    """``viewed``: tensors are views of the client's pages; else they are copied by system calls, which a file that has
    become shorter cannot hurt. ``leased``: see :meth:`Segment.abandoned`."""

    __slots__ = ("_pages", "_start", "byte_size", "leased", "name", "offset", "segment")

    def __init__(
        self,
        name: str,
        segment: Segment,
        offset: int,
        byte_size: int,
        *,
        viewed: bool,
        leased: bool,
    ) -> None:
        self.name = name
        self.segment = segment
        self.offset = offset
        self.byte_size = byte_size
        self.leased = leased
        self._start = offset % mmap.ALLOCATIONGRANULARITY
        self._pages: Pages | None = None
        if viewed:
            self._pages = Pages(segment.fd, offset - self._start, self._start + byte_size)

    @property
    def key(self) -> str:
        return self.segment.key

    def span(self, offset: int, size: int) -> Span:
        """So many bytes of it, as other regions of the same memory have them."""
        begin = self.offset + offset
        return Span(self.segment.identity, begin, begin + size)

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """So many bytes of it. Raises ``INVALID_REQUEST`` for a place outside, or a file that is too short now."""
        self._check(offset, size)
        if self._pages is not None:
            return self._pages.view(self._start + offset, size)
        data = bytearray(size)
        if os.preadv(self.segment.fd, [data], self.offset + offset) < size:
            self._too_short()
        return data

    def room(self, offset: int, size: int) -> memoryview | None:
        """Memory to write to in place; None where :meth:`write` is the only way. Raises as :meth:`read`."""
        self._check(offset, size)
        return None if self._pages is None else self._pages.view(self._start + offset, size)

    def write(self, offset: int, data: memoryview) -> None:
        """``data``: bytes. Raises as :meth:`read`."""
        rest = data
        self._check(offset, len(rest))
        if self._pages is not None:
            self._pages.view(self._start + offset, len(rest))[:] = rest
            return
        at = self.offset + offset
        while rest:
            written = os.pwrite(self.segment.fd, rest, at)
            at += written
            rest = rest[written:]

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.byte_size:
            said = f"has {self.byte_size} bytes; {size} from {offset} on are not all in it"
            raise HeadraceError(Code.INVALID_REQUEST, f"The region {self.name[:200]!r} {said}.")
        self.segment.check(self.offset + offset + size)

    def _too_short(self) -> NoReturn:
        self.segment.check(self.offset + self.byte_size)
        said = f"The shared memory of the region {self.name[:200]!r} changed while it was read."
        raise HeadraceError(Code.INVALID_REQUEST, said)
