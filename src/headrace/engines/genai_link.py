"""The server's side of the connection to an engine process of ONNX Runtime GenAI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.genai_wire import (
    Answer,
    Cancel,
    Ended,
    Facts,
    Failed,
    Lines,
    Order,
    Piece,
    Pieces,
    Progress,
    Said,
    Start,
    decode_said,
    line,
)

_GONE = "The connection to the engine process is gone."


class Listener(Protocol):
    """Who wants what becomes of one run."""

    def pieces(self, pieces: list[Piece]) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def ended(self, ended: Ended) -> None: ...

    def failed(self, error: HeadraceError) -> None: ...


class GenaiLink(asyncio.Protocol):
    """For as long as the process lives. What is said before it is connected goes out then. ``facts``: what the
    process says first."""

    def __init__(self, port: int, key: str) -> None:
        loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent = [key.encode() + b"\n"]
        self._lines = Lines()
        self._listeners: dict[int, Listener] = {}
        self._questions: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self._closed = False
        self.facts: asyncio.Future[Facts] = loop.create_future()
        self._opening = loop.create_task(self._open(port))

    def start(self, start: Start, listener: Listener) -> None:
        """``start.run`` is a number from :meth:`number`. Raises ``ENGINE_UNAVAILABLE`` where the process is gone."""
        self._check_open()
        self._listeners[start.run] = listener
        self._send(start)

    def cancel(self, run: int) -> None:
        """Its listener hears nothing more."""
        if self._listeners.pop(run, None) is not None:
            self._send(Cancel(run))

    def number(self) -> int:
        """One that no other run or question has."""
        self._number += 1
        return self._number

    async def ask(self, question: int, order: Order) -> Answer:
        """The answer to ``order``, which has the number ``question``. Raises ``INVALID_REQUEST`` with the words of
        the process, and ``ENGINE_UNAVAILABLE`` where it is gone."""
        self._check_open()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions[question] = future
        self._send(order)
        try:
            answer: Answer = await future
        finally:
            self._questions.pop(question, None)
        if answer.error:
            raise HeadraceError(Code.INVALID_REQUEST, answer.error)
        return answer

    async def close(self) -> None:
        """Let go of the process, which then ends; idempotent."""
        self._opening.cancel()
        await asyncio.gather(self._opening, return_exceptions=True)
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.writelines(self._unsent)
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for text in self._lines.feed(data):
                self._hear(decode_said(text))
        except (ValueError, msgspec.DecodeError):  # it does not speak our language
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    async def _open(self, port: int) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        except OSError:
            self._gone()

    def _check_open(self) -> None:
        if self._closed:  # before the supervisor heard of it, perhaps
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, _GONE, retry_after_s=1.0)

    def _send(self, order: Order) -> None:
        if self._transport is None:
            self._unsent.append(line(order))
        else:
            self._transport.write(line(order))

    def _hear(self, said: Said) -> None:
        match said:
            case Pieces(pieces):
                self._tell_pieces(pieces)
            case Progress(run, done, total):
                if run in self._listeners:
                    self._listeners[run].progress(done, total)
            case Ended(run):
                self._finish(run, lambda listener: listener.ended(said))
            case Failed(run, code, message, param):
                error = HeadraceError(code, message, param=param)
                self._finish(run, lambda listener: listener.failed(error))
            case Answer(question):
                future = self._questions.get(question)
                if future is not None and not future.done():
                    future.set_result(said)
            case Facts():
                if not self.facts.done():
                    self.facts.set_result(said)

    def _tell_pieces(self, pieces: list[Piece]) -> None:
        """A run that spoke more than once in a step hears of all of it at once."""
        of: dict[int, list[Piece]] = {}
        for piece in pieces:
            of.setdefault(piece.run, []).append(piece)
        for run, ones in of.items():
            if run in self._listeners:
                self._listeners[run].pieces(ones)

    def _finish(self, run: int, tell: Callable[[Listener], None]) -> None:
        listener = self._listeners.pop(run, None)
        if listener is not None:
            tell(listener)

    def _gone(self) -> None:
        """Runs and questions end; the supervisor sees to the process."""
        if self._closed:
            return
        self._closed = True
        error = HeadraceError(Code.ENGINE_FAILED, _GONE)
        for run in list(self._listeners):
            self._finish(run, lambda listener: listener.failed(error))
        waiting: list[asyncio.Future[Any]] = [self.facts, *self._questions.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting for it
