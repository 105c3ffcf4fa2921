"""The built-in hook ``headrace.streams.audit:Audit``: who asked what when, and how it ended, as JSON lines.

One line when a generation starts and one when it finishes. Lines of one iteration of the event loop are
written together. No text of prompts or answers is written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Error, Finish
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook

_encode_lines = msgspec.json.Encoder().encode_lines
_logger = logging.getLogger("headrace.streams")


class _Line(msgspec.Struct, gc=False):
    at: float
    generation: str
    tenant: str
    session_id: str | None
    request_id: str
    event: str


class _Start(_Line, gc=False):
    model: str
    choices: int


class _Finish(_Line, gc=False):
    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


class _Error(_Line, gc=False):
    code: str
    message: str


class Audit(BaseHook):
    """``path``: the file, made if it is missing. At ``max_bytes`` it becomes ``path.1``, the older ones
    move up, and at most ``keep_files`` of those stay. If it cannot be written, ``on_start`` raises
    ``OSError``: with ``on_error = "fail"`` nothing runs unaudited. Nothing is written while a restart replays."""

    def __init__(
        self,
        path: str,
        max_bytes: int = 64 << 20,
        keep_files: int = 5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._max_bytes = max_bytes
        self._keep_files = keep_files
        self._clock = clock
        self._lines: list[_Line] = []  # of one iteration of the event loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: OSError | None = None
        self._fd = -1
        self._open()

    def on_start(self, context: HookContext) -> None:
        if context.replaying:
            return
        request, caller = context.request, context.caller
        lines = self._lines or self._begin()
        lines.append(
            _Start(
                self._clock(),
                context.generation,
                caller.tenant,
                caller.session_id,
                caller.request_id,
                "start",
                request.model,
                request.choices,
            )
        )
        if self._failure is not None:
            self._flush()
            if self._failure is not None:
                raise self._failure

    def on_finish(self, context: HookContext, end: Finish | Error) -> Sequence[Delta]:
        if context.replaying:
            return ()
        caller = context.caller
        lines = self._lines or self._begin()
        who = (
            self._clock(),
            context.generation,
            caller.tenant,
            caller.session_id,
            caller.request_id,
        )
        if type(end) is Finish:
            usage = end.usage
            lines.append(
                _Finish(*who, "finish", end.reasons, usage.prompt_tokens, usage.completion_tokens)
            )
        elif type(end) is Error:
            lines.append(_Error(*who, "error", end.code, end.message))
        return ()

    def close(self) -> None:
        """Write what is left; idempotent."""
        if self._fd >= 0:
            self._flush()
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> list[_Line]:
        """The lines of this iteration, which will be written at its end."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._flush)
        return self._lines

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        data = _encode_lines(lines)
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]
            self._failure = None
        except OSError as error:
            self._failure = error
            _logger.error(
                "%d audit lines were not written to %s: %s", len(lines), self._path, error
            )

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        for number in range(self._keep_files, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        fd = self._fd
        self._open()
        os.close(fd)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
