"""The lines of a file, as a stream: some hundred at a time, each with its number. The file is never held whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from headrace.domain.job import Fingerprint, LineError

BLOCK_BYTES = 128 * 1024
"""Read at once: what is done with its lines keeps the event loop for a millisecond or two."""
LINE_BYTES = 16 * 1024 * 1024
"""The longest line."""


class Line(NamedTuple):
    """``number``: from 1. ``text``: without its line break."""

    number: int
    text: bytes


class BadInput(Exception):
    """The input cannot be used, or not any more."""

    def __init__(self, error: LineError) -> None:
        super().__init__(error.message)
        self.error = error


class Lines:
    """An open file. ``seen``: what it was when it was looked at before; None: it is looked at now. Raises
    :class:`BadInput` where it is another one by now, or is not there."""

    def __init__(self, path: Path, seen: Fingerprint | None = None) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            why = error.strerror or str(error)
            said = f"The input file cannot be read: {why}."
            raise BadInput(LineError("input_file_missing", said)) from error
        self.seen = seen or self._look()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    async def blocks(self) -> AsyncIterator[list[Line]]:
        """All lines that have something in them. Raises :class:`BadInput`: for a line that is too long, and as soon
        as the file has changed."""
        rest, number, offset = b"", 1, 0
        while True:
            block = await asyncio.to_thread(self._read, offset, number)
            if not block:
                break
            offset += len(block)
            texts = (rest + block).split(b"\n")
            rest = texts.pop()
            if len(rest) > LINE_BYTES:
                raise _too_long(number + len(texts))
            lines = [Line(at, text) for at, text in enumerate(texts, number) if text.strip()]
            number += len(texts)
            if lines:
                yield lines
        if rest.strip():
            yield [Line(number, rest)]

    def _read(self, offset: int, number: int) -> bytes:
        block = os.pread(self._file, BLOCK_BYTES, offset)
        if self._look() != self.seen or (not block and offset != self.seen.bytes):
            said = f"The input file was changed while it was read, about line {number}."
            raise BadInput(LineError("input_file_changed", said, line=number))
        return block

    def _look(self) -> Fingerprint:
        found = os.fstat(self._file)
        return Fingerprint(found.st_size, found.st_mtime_ns)


def _too_long(number: int) -> BadInput:
    said = f"Line {number} is longer than {LINE_BYTES} bytes."
    return BadInput(LineError("line_too_long", said, line=number))
