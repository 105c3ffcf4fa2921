"""The usage journal: a file of lines, appended to, that says what was reserved and used on which day.

A line is one write, so it has reached the operating system when that returns: ``kill -9`` loses none, a power cut
may. ``["r", id, day, prompt, output, account …]``: reserved; ``["s", id, tokens]``: settled, it was so many in all;
``["t", day, account, tokens]``: the sum of what was settled before. It is written anew at the start and when it is
long, and lies beside the database, whose lock says that one server at a time writes both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError

LONG_BYTES = 4 * 1024 * 1024
_HEAD = b'["headrace usage",1]\n'
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(list[Any]).decode


def usage_journal_path(database: Path) -> Path:
    """Of the journal beside a database."""
    return database.with_name(f"{database.name}-usage.journal")


class UsageJournal:
    """``long_bytes``: what is longer, and four times as long as when it was begun, is written anew."""

    def __init__(self, path: Path, long_bytes: int = LONG_BYTES) -> None:
        self._path = path
        self._long_bytes = long_bytes
        self._long_at = long_bytes
        self._size = 0
        self._torn = False
        """Whether the last line may be there in part."""
        self._fd = -1

    @property
    def is_long(self) -> bool:
        """Whether it is time for :meth:`begin`."""
        return self._size > self._long_at

    def read(self) -> Iterator[list[Any]]:
        """Its lines; one that was cut short, or is no line, is left out. Raises ``STORE_FAILED``."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("read", error) from error
        head, _, rest = data.partition(b"\n")
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
        """From now on it has these lines, then what is appended: whole or not at all. Raises ``STORE_FAILED``."""
        data = _HEAD + _encode_lines(lines)
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            try:
                _write(fd, data)
                new.replace(self._path)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            self._long_at = self._size + self._long_bytes  # not with every line from now on
            raise self._failed("written", error) from error
        self.close()
        self._fd, self._size, self._torn = fd, len(data), False
        self._long_at = max(self._long_bytes, 4 * self._size)

    def reserve(self, id: str, day: int, prompt: int, output: int, accounts: list[str]) -> None:
        """Raises ``STORE_FAILED``."""
        self._append(_encode(("r", id, day, prompt, output, *accounts)))

    def settle(self, id: str, tokens: int) -> None:
        """Raises ``STORE_FAILED``."""
        self._append(_encode(("s", id, tokens)))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        line = b"%b%b\n" % (b"\n" if self._torn else b"", line)
        try:
            _write(self._fd, line)
        except OSError as error:
            self._torn = True
            raise self._failed("written", error) from error
        self._torn = False
        self._size += len(line)

    def _failed(self, what: str, error: OSError) -> HeadraceError:
        text = f"The usage journal {self._path} cannot be {what}: {error.strerror or error}; the operator can mend it."
        return HeadraceError(Code.STORE_FAILED, text)


def _write(fd: int, data: bytes) -> None:
    """All of it; nearly always this is one write."""
    while data:
        data = data[os.write(fd, data) :]
