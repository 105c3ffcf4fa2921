"""The rows that a job has written: a file that is only appended to, a line each, in the order of their ends.

What a row is of stands at its beginning, so that a crash costs nothing: what is there is known, and a line that was
cut short is cut off.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from headrace.domain.event import Usage
from headrace.domain.job import RowAnswer
from headrace.jobs.contents import write_all
from headrace.jobs.done import Done

_NUMBER = re.compile(rb'\{"id":"batch_req_[0-9A-Z]{26}_([0-9]{1,15})","custom_id":"')
_BLOCK_BYTES = 1024 * 1024


class _Usage(msgspec.Struct, frozen=True, gc=False):
    """Of a chat or completion, and of a response."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Body(msgspec.Struct, frozen=True, gc=False):
    usage: _Usage | None = None


class _Response(msgspec.Struct, frozen=True, gc=False):
    body: _Body


class _Row(msgspec.Struct, frozen=True, gc=False):
    response: _Response | None = None


_row = msgspec.json.Decoder(_Row).decode
_encode = msgspec.json.Encoder().encode


class Results:
    """``count`` lines; ``prompt_tokens``, ``completion_tokens`` of them together. All but :meth:`load` is quick; errors
    of the disk are ``OSError``, and then it is as it was before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self.bytes = 0
        self.count = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def load(self, done: Done) -> None:
        """Learn what is there, and cut off what is not whole. Blocking, for as long as reading takes."""
        rest = b""
        while block := os.pread(self._file, _BLOCK_BYTES, self.bytes + len(rest)):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if not self._know(line, done):
                    self._cut()
                    return
                self.bytes += len(line) + 1
        self._cut()

    def append(self, line: bytes, usage: Usage | None) -> None:
        """Add a row, which outlives the process when this returns."""
        try:
            write_all(self._file, line)
        except OSError:
            self._cut()
            raise
        self.bytes += len(line)
        self.count += 1
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens

    def add(self, line: bytes, done: Done) -> None:
        """Add a line that is whole and of the same form; the row is ``done`` then."""
        write_all(self._file, line)
        self.bytes += len(line)
        self._know(line[:-1], done)

    def sync(self) -> None:
        """Everything is on the disk when this returns. Blocking."""
        os.fsync(self._file)

    def close(self) -> None:
        """Idempotent."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _cut(self) -> None:
        """Nothing is behind what is known, and the next line goes there."""
        os.ftruncate(self._file, self.bytes)
        os.lseek(self._file, self.bytes, os.SEEK_SET)

    def _know(self, line: bytes, done: Done) -> bool:
        """Take note of a row; False: it is none."""
        found = _NUMBER.match(line)
        if found is None:
            return False
        try:
            usage = _usage_of(_row(line))
        except msgspec.ValidationError:
            usage = None  # JSON, and of a form that has no usage
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        done.add(int(found[1]))
        self.count += 1
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens + usage.input_tokens
            self.completion_tokens += usage.completion_tokens + usage.output_tokens
        return True


def _usage_of(row: _Row) -> _Usage | None:
    return None if row.response is None else row.response.body.usage


def answered(ulid: str, number: int, custom_id: str, answer: RowAnswer) -> bytes:
    """The line of a row that was answered. ``ulid``: the job's."""
    return (
        b'{"id":"batch_req_%b_%d","custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}\n'
        % (
            ulid.encode(),
            number,
            _encode(custom_id),
            answer.status,
            _encode(answer.request_id),
            answer.body,
        )
    )


def never_run(ulid: str, number: int, custom_id: str, code: str, message: str) -> bytes:
    """The line of a row that nobody will answer."""
    error = _encode({"code": code, "message": message})
    head = b'{"id":"batch_req_%b_%d","custom_id":%b,"response":null,"error":%b}\n'
    return head % (ulid.encode(), number, _encode(custom_id), error)
