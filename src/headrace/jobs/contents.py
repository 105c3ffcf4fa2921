"""What is in the files: one file on the disk each, in a folder of their own, beside ``jobs.db``.

A file has its name only once all of it has reached the disk; what a crash left without a row in the database is
removed at the next start. Nothing is ever held whole. Blocking, but for what is said to be not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from headrace.domain.errors import Code, HeadraceError

_DRAFT = ".part"


class Contents:
    """``folder`` comes to be with :meth:`open`; only its owner may look into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._drafts = 0

    def open(self, known: Callable[[str], bool]) -> None:
        """Make the folder, and remove what is in it and not ``known``. Raises ``STORE_FAILED``."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if path.name.endswith(_DRAFT) or not known(path.name):
                    path.unlink()
        except OSError as error:
            raise failed(self.folder, error) from error

    def path(self, id: str) -> Path:
        return self.folder / id

    def draft(self) -> Draft:
        """An empty one. Raises ``STORE_FAILED``."""
        self._drafts += 1
        return Draft(self.folder / f"{self._drafts}{_DRAFT}")

    def remove(self, id: str) -> None:
        """Without effect where it is not there. Raises ``STORE_FAILED``."""
        try:
            self.path(id).unlink(missing_ok=True)
        except OSError as error:
            raise failed(self.path(id), error) from error


class Draft:
    """A file that is being written. ``keep`` it or ``discard`` it; one call at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bytes = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(path, error) from error

    def write(self, data: bytes | bytearray) -> None:
        """Append all of it. Raises ``STORE_FAILED``."""
        try:
            write_all(self._file, data)
        except OSError as error:
            raise failed(self._path, error) from error
        self.bytes += len(data)

    def keep(self, path: Path) -> None:
        """Give it its name, with everything on the disk. Raises ``STORE_FAILED``."""
        try:
            os.fsync(self._file)
            self._close()
            place(self._path, path)
        except OSError as error:
            raise failed(path, error) from error

    def discard(self) -> None:
        """Idempotent, and without effect on one that was kept."""
        self._close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def place(path: Path, where: Path) -> None:
    """Move a file to where it is looked for, so that it is there after a power cut, too."""
    path.replace(where)
    for folder in {path.parent, where.parent}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(file: int, data: bytes | bytearray) -> None:
    """Write until all is written: a full disk may take a part of it first."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def failed(path: Path, error: OSError) -> HeadraceError:
    """``STORE_FAILED``: what the operator has to look at."""
    said = f"{path} cannot be read or written: {error.strerror or error}; the operator has to look."
    return HeadraceError(Code.STORE_FAILED, said)
