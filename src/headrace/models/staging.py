"""Locks and staging folders: nothing half-made is ever where a finished file belongs.

A staging folder lives as long as its process holds the lock file in it (``flock``, which the system
drops when a process dies, however it dies). The next one clears away what the dead left behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.models.wanted import Report, Step

_PERIOD_S = 0.1


@contextmanager
def locked(file: Path, report: Report | None = None) -> Iterator[None]:
    """Hold the lock of this name. While another process has it, wait and report that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        while not _try(handle.fileno()):
            if report:
                report(Step("waiting"))
            time.sleep(_PERIOD_S)
        yield


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """An empty folder below ``root`` that is gone afterwards."""
    with locked(root / ".lock"):
        _clear(root)
        folder = Path(tempfile.mkdtemp(dir=root))
        handle = (folder / ".lock").open("a")
        _try(handle.fileno())
    try:
        with handle:
            (folder / "files").mkdir()
            yield folder / "files"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(file: Path, target: Path) -> None:
    """Move a finished file to its place: it is there completely or not at all, also after a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync(file)
    file.replace(target)
    _sync(target.parent)


def _clear(root: Path) -> None:
    for folder in root.iterdir():
        if folder.is_dir() and not _held(folder / ".lock"):
            shutil.rmtree(folder, ignore_errors=True)


def _held(file: Path) -> bool:
    try:
        with file.open("a") as handle:
            return not _try(handle.fileno())
    except FileNotFoundError:
        return False


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
