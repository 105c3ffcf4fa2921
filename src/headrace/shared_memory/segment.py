"""What a client offers to share: POSIX shared memory, or a memfd. Opened with care, looked at again before each use.

Nothing here trusts what it was told: the file may be another one, shorter, or gone by the time it is used.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
from pathlib import Path
from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError

FOLDER = Path("/dev/shm")
_NAME = re.compile(r"/?([\x21-\x2e\x30-\x7e]{1,250})")
_MEMFD = re.compile(r"memfd:([1-9]\d{0,9}):(\d{1,9})")
_LABEL = re.compile(r"/memfd:(.*) \(deleted\)", re.DOTALL)


class Place(NamedTuple):
    """Where a key leads. ``label``: its name as those see it who look at the machine. ``is_file``: in ``FOLDER``."""

    path: Path
    label: str
    is_file: bool


class Segment:
    """An open one. ``sealed``: it cannot become shorter. ``users``: regions of it."""

    __slots__ = ("_place", "fd", "identity", "key", "sealed", "users")

    def __init__(self, key: str, place: Place, fd: int, found: os.stat_result) -> None:
        self.key = key
        self.fd = fd
        self.identity = (found.st_dev, found.st_ino)
        self.sealed = not place.is_file
        self.users = 0
        self._place = place

    def check(self, end: int) -> None:
        """Raise ``INVALID_REQUEST`` if it has fewer than ``end`` bytes now."""
        size = os.lseek(self.fd, 0, os.SEEK_END)  # less than fstat(2) costs, which says more
        if size < end:
            raise _bad(self.key, f"has {size} bytes; {end} are needed")

    def abandoned(self, leased: bool) -> bool:
        """Whether whoever shared it is gone for good. ``leased``: it is a file that is nobody's without a process that
        has it open; else a file with a name may be opened again."""
        if not self._place.is_file:
            return not self._is_there()
        return (leased or os.fstat(self.fd).st_nlink == 0) and self._is_ours_alone()

    def unlink(self) -> None:
        """Remove the file, if the name still leads to it."""
        if self._place.is_file and self._is_there():
            self._place.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self.fd)

    def _is_there(self) -> bool:
        try:
            found = self._place.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def _is_ours_alone(self) -> bool:
        """Whether no other process has it open or mapped: only then does the kernel give a lease for writing
        (fcntl(2)). Who comes while we hold it is told to us by a signal that does nothing."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            return False
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True


def open_segment(key: str, owner: str | None) -> Segment:
    """``owner``: whose name and a dot its label must begin with; None: any will do. Raises ``INVALID_REQUEST``,
    ``FORBIDDEN`` and ``NOT_FOUND``."""
    place = _locate(key)
    if owner is not None and not place.label.startswith(f"{owner}."):
        said = f"must have a name that begins with {owner + '.'!r}: only those are yours"
        raise _bad(key, said, Code.FORBIDDEN)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if place.is_file else 0)
    try:
        fd = os.open(place.path, flags)
    except OSError as error:
        raise _bad(key, f"cannot be opened: {error.strerror}", Code.NOT_FOUND) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _bad(key, "is no shared memory")
        if not place.is_file and not _is_sealed(fd):
            raise _bad(key, "must be sealed with F_SEAL_SHRINK")
    except BaseException:
        os.close(fd)
        raise
    return Segment(key, place, fd, found)


def allocate(segment: Segment, offset: int, size: int) -> None:
    """Have all its pages, so that none is missing when it is written to. Raises ``INVALID_REQUEST`` if memory is
    full."""
    try:
        os.posix_fallocate(segment.fd, offset, size)
    except OSError as error:
        raise _bad(segment.key, f"cannot have its memory: {error.strerror}") from None


def _locate(key: str) -> Place:
    memfd = _MEMFD.fullmatch(key)
    if memfd is not None:
        path = Path("/proc") / memfd[1] / "fd" / memfd[2]
        try:
            label = _LABEL.fullmatch(os.readlink(path))
        except OSError as error:
            raise _bad(key, f"cannot be opened: {error.strerror}", Code.NOT_FOUND) from None
        if label is None:
            raise _bad(key, "is no memfd")
        return Place(path, label[1], False)
    name = _NAME.fullmatch(key)
    if name is None or name[1] in (".", ".."):
        said = "must be one name, with or without a slash before it, or `memfd:PID:FD`"
        raise _bad(key, said)
    return Place(FOLDER / name[1], name[1], True)


def _is_sealed(fd: int) -> bool:
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False


def _bad(key: str, said: str, code: Code = Code.INVALID_REQUEST) -> HeadraceError:
    return HeadraceError(code, f"The shared memory {key[:260]!r} {said}.", param="key")
