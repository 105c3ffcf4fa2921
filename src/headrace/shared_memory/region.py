"""A part of shared memory under a name that its tenant gave it."""

from __future__ import annotations

import mmap
import os
from typing import NoReturn

from headrace.domain.errors import Code, HeadraceError
from headrace.shared_memory.segment import Segment


class Region:
    """``viewed``: tensors are views of the client's pages; else they are copied by system calls, which a file that has
    become shorter cannot hurt. ``leased``: see :meth:`Segment.abandoned`."""

    __slots__ = ("_map", "_start", "byte_size", "leased", "name", "offset", "segment")

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
        self._map: mmap.mmap | None = None
        if viewed:
            begin = offset - self._start
            size = self._start + byte_size
            # Populated: else the first request would have a fault for each page, ten times what its copy takes.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._map = mmap.mmap(segment.fd, size, flags, offset=begin)

    @property
    def key(self) -> str:
        return self.segment.key

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """So many bytes of it. Raises ``INVALID_REQUEST`` for a place outside, or a file that is too short now."""
        self._check(offset, size)
        if self._map is not None:
            return self._view(self._map, offset, size)
        data = bytearray(size)
        if os.preadv(self.segment.fd, [data], self.offset + offset) < size:
            self._too_short()
        return data

    def room(self, offset: int, size: int) -> memoryview | None:
        """Memory to write to in place; None where :meth:`write` is the only way. Raises as :meth:`read`."""
        self._check(offset, size)
        return None if self._map is None else self._view(self._map, offset, size)

    def write(self, offset: int, data: memoryview) -> None:
        """``data``: bytes. Raises as :meth:`read`."""
        rest = data
        self._check(offset, len(rest))
        if self._map is not None:
            self._view(self._map, offset, len(rest))[:] = rest
            return
        at = self.offset + offset
        while rest:
            written = os.pwrite(self.segment.fd, rest, at)
            at += written
            rest = rest[written:]

    def _view(self, map_: mmap.mmap, offset: int, size: int) -> memoryview:
        at = self._start + offset
        return memoryview(map_)[at : at + size]

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.byte_size:
            said = f"has {self.byte_size} bytes; {size} from {offset} on are not all in it"
            raise HeadraceError(Code.INVALID_REQUEST, f"The region {self.name[:200]!r} {said}.")
        self.segment.check(self.offset + offset + size)

    def _too_short(self) -> NoReturn:
        self.segment.check(self.offset + self.byte_size)
        said = f"The shared memory of the region {self.name[:200]!r} changed while it was read."
        raise HeadraceError(Code.INVALID_REQUEST, said)
