"""The usage journal: lines in a file that say what was reserved and used on which day.

``["r", id, day, prompt, output, account …]``: reserved; ``["s", id, tokens]``: settled, it was so many in all;
``["t", day, account, tokens]``: the sum of what was settled before.

The file is mapped into memory: a line is a copy, no system call, and belongs to the operating system as soon as it is
there; ``kill -9`` loses none, a power cut may. It has a fixed size, allocated when it is made, so that a full disk is
an error then; behind the lines there are zeros. It is made anew at the start and when it is full, and lies beside the
database, whose lock says that one server at a time writes both.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError

FILE_BYTES = 4 * 1024 * 1024
_HEAD = b'["headrace usage",1]\n'
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(list[Any]).decode


def usage_journal_path(database: Path) -> Path:
    """Of the journal beside a database."""
    return database.with_name(f"{database.name}-usage.journal")


class UsageJournal:
    """``file_bytes``: its size, if that is four times as much as the lines that it begins with."""

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._map: mmap.mmap | None = None
        self._at = self._end = 0
        self._closed = False

    def read(self) -> Iterator[list[Any]]:
        """Its lines; one that was cut short, or is no line, is left out. Raises ``STORE_FAILED``."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("read", error) from error
        head, _, rest = data.rstrip(b"\0").partition(b"\n")
        if data and head + b"\n" != _HEAD:
            text = f"{self._path} is no usage journal that this version can read; move it away to start without it."
            raise HeadraceError(Code.STORE_FAILED, text)
        for line in rest.split(b"\n"):
            try:
                value = _decode(line)
            except (msgspec.DecodeError, RecursionError):
                continue
            if value:
                yield value

    def begin(self, lines: Sequence[Iterable[object]]) -> None:
        """From now on it has these lines, then what is appended: whole or not at all. Raises ``STORE_FAILED``, and
        ``SHUTTING_DOWN`` after it was closed."""
        if self._closed:
            raise HeadraceError(Code.SHUTTING_DOWN, "The usage journal is closed.")
        data = _HEAD + _encode_lines(lines)
        size = max(self._file_bytes, 4 * len(data))
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
                opened = mmap.mmap(fd, size)
            finally:
                os.close(fd)
            opened[: len(data)] = data
            new.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise self._failed("written", error) from error
        self._unmap()
        self._map, self._at, self._end = opened, len(data), size

    def append(self, *line: object) -> bool:
        """When this returns True, the line outlives the process. False: it is full, and has to begin anew."""
        data = _encode(line) + b"\n"
        at = self._at
        end = at + len(data)
        if self._map is None or end > self._end:
            return False
        self._map[at:end] = data
        self._at = end
        return True

    def close(self) -> None:
        """Leave it as it is. Idempotent."""
        self._closed = True
        self._unmap()

    def _unmap(self) -> None:
        opened, self._map = self._map, None
        if opened is not None:
            opened.close()

    def _failed(self, what: str, error: OSError) -> HeadraceError:
        text = f"The usage journal {self._path} cannot be {what}: {error.strerror or error}; the operator can mend it."
        return HeadraceError(Code.STORE_FAILED, text)
