"""The journal: an append-only file of frames, one frame (and one ``write``) per batch of appends.

What ``write`` has taken survives the death of the process. A frame is its length, a checksum, its
number and its body; reading a file stops at the first frame that is cut short or damaged, which after
a crash can only be the last one. Files are numbered and rotate; the owner deletes a file once
everything in it is safe elsewhere.

Against the loss of power the journal promises nothing: it is never synced, what SQLite has is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

FILE_BYTES = 8 << 20
"""Size at which the owner should rotate. Two files of small records are replayed in under a second."""

_FRAME = Struct("<IIQ")
_logger = logging.getLogger("headrace.streams")


def journal_files(database: Path) -> list[Path]:
    """The journal's files beside ``database``, oldest first."""
    return sorted(
        database.parent.glob(f"{database.name}.*.journal"), key=lambda file: _number_of(file)
    )


def _number_of(file: Path) -> int:
    return int(file.name.split(".")[-2])


def read_frames(file: Path) -> Iterator[tuple[int, bytes]]:
    """``(number, body)`` of every whole frame of a file."""
    data = file.read_bytes()
    at = 0
    while at + _FRAME.size <= len(data):
        length, checksum, number = _FRAME.unpack_from(data, at)
        start = at + _FRAME.size
        body = data[start : start + length]
        if not length or len(body) < length or _checksum(body, number) != checksum:
            break
        yield number, body
        at = start + length
    if at < len(data):
        _logger.warning("%s: the last %d bytes were never completed", file.name, len(data) - at)


def _checksum(body: bytes, number: int) -> int:
    return crc32(body, number & 0xFFFFFFFF)


class Journal:
    """The file being written. Raises ``OSError`` where the disk does."""

    def __init__(self, database: Path, frame: int) -> None:
        files = journal_files(database)
        self._database = database
        self._number = _number_of(files[-1]) if files else 0
        self._fd = -1
        self._torn = False
        self.frame = frame
        self.size = 0
        self.rotate()

    @property
    def file(self) -> Path:
        """The file being written."""
        return self._path(self._number)

    def write(self, body: bytes) -> None:
        """Append one frame: when this returns, it has reached the operating system. On an error the
        file is as before; what was written of the frame is cut off again."""
        if self._torn:
            self._cut()
        number = self.frame + 1
        data = _FRAME.pack(len(body), _checksum(body, number), number) + body
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self._cut()
            raise
        self.size += written
        self.frame = number

    def rotate(self) -> None:
        """Go on in a new file."""
        number = self._number + 1
        fd = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.close()
        self._fd, self._number, self.size, self._torn = fd, number, 0, False

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut(self) -> None:
        """A torn frame would hide the ones behind it: remove it, or nothing more is written here."""
        self._torn = True
        os.ftruncate(self._fd, self.size)
        self._torn = False

    def _path(self, number: int) -> Path:
        return self._database.with_name(f"{self._database.name}.{number:06}.journal")
