"""The journal: files mapped into memory, to which records are appended; what is in them outlives the process.

A mapped page belongs to the operating system as soon as it is written to: an append is a copy, no system
call, and survives ``kill -9`` from the moment it returns. A frame is its length, a checksum and a record;
the length is written last, so that a process that dies in the middle leaves nothing that could be taken for
one. Files are of fixed size, made and allocated before they are needed (a disk that is full is an error
then, not a signal later).

A file is used again once everything in it is safe elsewhere: its pages are in memory, and to write to a fresh
one costs more than all else in an append. So behind the newest frame lie stale ones. Frames are numbered
through all files; a file says the number of its first (0: it holds nothing), and the checksum is seeded with
the number: a stale frame is never the one that is expected.

Against the loss of power the journal promises nothing: it is never synced, what SQLite has is. The checksum
is for what a disk makes of such a loss.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from struct import Struct
from zlib import crc32

from headrace.streams.journal_older import MAGIC_2, read_records_v1, read_records_v2
from headrace.streams.record import Record, read_record

FILE_BYTES = 8 << 20
"""Size of a file. Two files of small records are replayed in under a second."""
SPARE_FILES = 2
"""At most so many wait to be written, so that there is one while another's records go to SQLite."""

_MAGIC = b"headrace journal 3\n"
_FIRST_AT = 24
"""Where the number of the first frame stands; aligned, so that it is written at once."""
_FRAMES_AT = 32
_FRAME = Struct("<II")
_FRAME_BYTES = _FRAME.size
_pack_frame = _FRAME.pack_into


def journal_files(database: Path) -> list[Path]:
    """The journal's files beside ``database``, in the order in which they were written."""
    files = database.parent.glob(f"{database.name}.*.journal")
    return sorted(files, key=lambda file: (_first_frame(file), _number_of(file)))


def _number_of(file: Path) -> int:
    return int(file.name.split(".")[-2])


def _first_frame(file: Path) -> int:
    """0 for a file of an older version: these were before all others. One that holds nothing is the last."""
    with file.open("rb") as opened:
        data = opened.read(_FRAMES_AT)
    if not any(data):
        return sys.maxsize  # it is being made, or its process died then
    if not data.startswith(_MAGIC):
        return 0
    return int.from_bytes(data[_FIRST_AT:], "little") or sys.maxsize


def read_records(file: Path) -> Iterator[Record]:
    """Every whole record of a file. Raises ``OSError`` for a file that is no journal of ours."""
    data = file.read_bytes()
    if not data.startswith(_MAGIC):
        yield from _read_older(file, data)
        return
    frame = int.from_bytes(data[_FIRST_AT:_FRAMES_AT], "little")
    at = _FRAMES_AT
    while frame and at + _FRAME_BYTES <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        start = at + _FRAME_BYTES
        body = data[start : start + length]
        if not length or len(body) < length or crc32(body, frame) != checksum:
            return
        yield read_record(frame, body)
        frame += 1
        at = start + length


def _read_older(file: Path, data: bytes) -> Iterator[Record]:
    """A file of a version before, or one whose process died while it was made."""
    if data.startswith(MAGIC_2):
        yield from read_records_v2(data)
        return
    begun = data.rstrip(b"\0")
    if _MAGIC.startswith(begun) or MAGIC_2.startswith(begun):
        return
    nothing = True
    for record in read_records_v1(data):
        nothing = False
        yield record
    if nothing:
        raise OSError(
            f"{file.name} is not a journal that this version of headrace can read; to start without"
            " what is in it, move it away"
        )


class JournalFile:
    """A file, allocated and mapped, that holds nothing."""

    __slots__ = ("map", "path", "size")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            self.map = mmap.mmap(fd, size)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)
        self.map[: len(_MAGIC)] = _MAGIC

    def begin(self, frame: int) -> None:
        """From now on it holds the frames from this number on; 0: nothing."""
        self.map[_FIRST_AT:_FRAMES_AT] = frame.to_bytes(8, "little")

    def discard(self) -> None:
        """It is not needed any more."""
        self.map.close()
        self.path.unlink(missing_ok=True)


class Journal:
    """The file being written, and those that follow. ``frame``: the number of the newest record. ``make_room``
    is asked to call :meth:`rotate` for a record of so many bytes, or to raise what :meth:`append` raises then;
    ``prepare`` to have :meth:`reserve` done for a file that will soon be needed. Otherwise ``OSError`` is
    raised where the disk does."""

    _file: JournalFile
    _map: mmap.mmap
    # Where the body of the next frame starts; where the file ends or, until it is reached, its half.
    _start: int
    _end: int

    def __init__(
        self,
        database: Path,
        frame: int,
        *,
        make_room: Callable[[int], None],
        prepare: Callable[[], None],
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._database = database
        self._number = max(map(_number_of, journal_files(database)), default=0)
        self._file_bytes = file_bytes
        self._make_room = make_room
        self._prepare = prepare
        self._spares: list[JournalFile] = []  # bounded by SPARE_FILES
        self._closed = False
        self.frame = frame
        self._use(JournalFile(self._new_path(), file_bytes))

    @property
    def file(self) -> JournalFile:
        """The file being written."""
        return self._file

    def append(self, body: bytes) -> None:
        """Append an encoded record; when this returns, it outlives the process."""
        start = self._start
        end = start + len(body)
        if end > self._end:
            self._pass_end(len(body))
            start = self._start
            end = start + len(body)
        frame = self.frame + 1
        self._map[start:end] = body
        _pack_frame(self._map, start - _FRAME_BYTES, end - start, crc32(body, frame))
        self._start = end + _FRAME_BYTES
        self.frame = frame

    def rotate(self, needed: int) -> None:
        """Go on in another file that has room for a record of ``needed`` bytes."""
        size = max(self._file_bytes, needed + _FRAMES_AT + _FRAME_BYTES)
        if self._spares and size == self._file_bytes:
            following = self._spares.pop()
        else:
            following = JournalFile(self._new_path(), size)
        self._use(following)

    def _use(self, file: JournalFile) -> None:
        file.begin(self.frame + 1)
        self._file = file
        self._map = file.map
        self._start = _FRAMES_AT + _FRAME_BYTES
        self._end = file.size // 2

    def _pass_end(self, needed: int) -> None:
        if not self._closed and self._end < self._file.size:
            self._end = self._file.size
            if not self._spares:  # the one that was full is not yet back
                self._prepare()
        if self._start + needed > self._end:
            self._make_room(needed)
            self._end = max(self._end, self._start + needed)  # a record may be most of its file

    def reserve(self) -> Callable[[], JournalFile]:
        """What makes a further file, on any thread, for :meth:`adopt`."""
        return partial(JournalFile, self._new_path(), self._file_bytes)

    def adopt(self, file: JournalFile) -> None:
        """Keep this file, which holds nothing, for :meth:`rotate`, if it is of use."""
        if self._closed or len(self._spares) >= SPARE_FILES or file.size != self._file_bytes:
            file.discard()
        else:
            self._spares.append(file)

    def close_for_writing(self) -> None:
        """From here on there is no room, and no file is kept."""
        self._end = 0
        self._closed = True
        while self._spares:
            self._spares.pop().discard()

    def close(self) -> None:
        """Leave what is in the folder as it is. Idempotent."""
        self._end = 0
        self._closed = True
        for file in (self._file, *self._spares):
            file.map.close()

    def _new_path(self) -> Path:
        self._number += 1
        return self._database.with_name(f"{self._database.name}.{self._number:06}.journal")
