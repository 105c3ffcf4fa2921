"""What an engine process wrote: its last lines in memory, more of them in a file of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

KEPT_LINES = 200
MAX_LINE_BYTES = 2000
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Of the log file; once it is full it becomes ``….1``, in place of the one before."""


class ChildLog:
    """A bounded ring of lines and a file. A full disk costs the file, never the server."""

    def __init__(
        self, path: Path | None, on_trouble: Callable[[str], None] = lambda _: None
    ) -> None:
        self._path = path
        self._on_trouble = on_trouble
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._ragged = b""
        self._file: BinaryIO | None = None
        self._size = 0

    def open(self) -> None:
        """Open the file for appending."""
        if self._path is None or self._file is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            self._size = self._file.tell()
        except OSError as error:
            self._drop_file(error)

    def feed(self, data: bytes) -> None:
        """Take what the process wrote."""
        self._write(data)
        lines = (self._ragged + data).split(b"\n")
        self._ragged = lines.pop()[-MAX_LINE_BYTES:]
        self._lines.extend(line[:MAX_LINE_BYTES].decode(errors="replace") for line in lines)

    def note(self, line: str) -> None:
        """Add a line of our own."""
        self.feed(f"headrace: {line}\n".encode())

    def last(self, count: int) -> list[str]:
        """The newest lines, oldest first."""
        ragged = [self._ragged.decode(errors="replace")] if self._ragged else []
        return [*self._lines, *ragged][-count:]

    def close(self) -> None:
        """Close the file; idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None or self._path is None:
            return
        try:
            if self._size + len(data) > MAX_FILE_BYTES:
                self._turn(self._path)
            self._size += self._file.write(data[-MAX_FILE_BYTES:]) or 0
        except OSError as error:
            self._drop_file(error)

    def _turn(self, path: Path) -> None:
        self.close()
        path.replace(path.with_name(path.name + ".1"))
        self._file = path.open("ab", buffering=0)
        self._size = 0

    def _drop_file(self, error: OSError) -> None:
        self.close()
        self._on_trouble(f"the engine's log file {self._path} cannot be written: {error}")
