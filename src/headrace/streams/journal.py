"""The journal: files mapped into memory, to which records are appended; what is in them outlives the process.

A mapped page belongs to the operating system as soon as it is written to: an append is a copy, no system
call, and survives ``kill -9`` from the moment it returns. A frame is its length, a checksum and a record;
the length is written last, so that a process that dies in the middle leaves nothing that could be taken for
one. Files are numbered, of fixed size, made and allocated before they are needed (a disk that is full is an
error then, not a signal later); the owner deletes a file once everything in it is safe elsewhere.

Against the loss of power the journal promises nothing: it is never synced, what SQLite has is. The checksum
is for what a disk makes of such a loss.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from struct import Struct
from zlib import crc32

from headrace.streams.journal_v1 import read_records_v1
from headrace.streams.record import Record, read_record

FILE_BYTES = 8 << 20
"""Size of a file. Two files of small records are replayed in under a second."""

_MAGIC = b"headrace journal 2\n"
_FRAME = Struct("<II")
_pack_frame = _FRAME.pack_into
_logger = logging.getLogger("headrace.streams")


def journal_files(database: Path) -> list[Path]:
    """The journal's files beside ``database``, oldest first."""
    return sorted(
        database.parent.glob(f"{database.name}.*.journal"), key=lambda file: _number_of(file)
    )


def _number_of(file: Path) -> int:
    return int(file.name.split(".")[-2])


def read_records(file: Path) -> Iterator[Record]:
    """Every whole record of a file. Raises ``OSError`` for a file that is no journal of ours."""
    data = file.read_bytes()
    if not data.startswith(_MAGIC):
        yield from _read_older(file, data)
        return
    at = len(_MAGIC)
    while at + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        start = at + _FRAME.size
        body = data[start : start + length]
        if not length:
            return
        if len(body) < length or crc32(body) != checksum:
            _logger.warning("%s: what follows byte %d was never completed", file.name, at)
            return
        yield read_record(body)
        at = start + length


def _read_older(file: Path, data: bytes) -> Iterator[Record]:
    """A file of the version before, or one whose process died while it was made."""
    if _MAGIC.startswith(data.rstrip(b"\0")):
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


class Spare:
    """A new file, allocated and mapped."""

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

    def discard(self) -> None:
        """It is not needed after all."""
        self.map.close()
        self.path.unlink(missing_ok=True)


class Journal:
    """The file being written, and the next one. Raises ``OSError`` where the disk does.
    ``frame``: the number of the newest record, kept by the owner."""

    _file: Spare
    _map: mmap.mmap
    _at: int
    _end: int

    def __init__(self, database: Path, frame: int, file_bytes: int = FILE_BYTES) -> None:
        files = journal_files(database)
        self._database = database
        self._number = _number_of(files[-1]) if files else 0
        self._file_bytes = file_bytes
        self._spare: Spare | None = None
        self.frame = frame
        self._use(Spare(self._new_path(), file_bytes))

    @property
    def file(self) -> Path:
        """The file being written."""
        return self._file.path

    def append(self, body: bytes) -> bool:
        """Append an encoded record; when this returns True, it outlives the process. False: there is no
        room left in this file."""
        at = self._at
        length = len(body)
        start = at + 8
        end = start + length
        if end > self._end:
            return False
        self._map[start:end] = body
        _pack_frame(self._map, at, length, crc32(body))
        self._at = end
        return True

    def rotate(self, needed: int) -> None:
        """Go on in a new file that has room for a record of ``needed`` bytes."""
        size = max(self._file_bytes, needed + len(_MAGIC) + _FRAME.size)
        following, self._spare = self._spare, None
        if following is not None and following.size < size:
            following.discard()
            following = None
        if following is None:
            following = Spare(self._new_path(), size)
        self._map.close()
        self._use(following)

    def _use(self, file: Spare) -> None:
        self._file = file
        self._map, self._at, self._end = file.map, len(_MAGIC), file.size

    def reserve(self) -> Callable[[], Spare]:
        """What makes the next file, on any thread, for :meth:`adopt`."""
        return partial(Spare, self._new_path(), self._file_bytes)

    def adopt(self, spare: Spare) -> None:
        """Keep this file for :meth:`rotate`, unless there is a newer one by now."""
        if self._end and self._spare is None and _number_of(spare.path) > _number_of(self.file):
            self._spare = spare
        else:
            spare.discard()

    def close_for_writing(self) -> None:
        """From here on there is no room."""
        self._end = 0

    def close(self) -> None:
        """Idempotent."""
        self._map.close()
        self._end = 0
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def _new_path(self) -> Path:
        self._number += 1
        return self._database.with_name(f"{self._database.name}.{self._number:06}.journal")
