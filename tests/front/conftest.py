"""What the tests of the front share: a server on a free port and a client that speaks raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from headrace.front.exchange import Exchange
from headrace.front.limits import Limits
from headrace.front.listen import Front, FrontOptions, listen

TIMEOUT_S = 30.0


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, front: Front, context: ssl.SSLContext | None = None) -> Client:
        if front.port:
            return cls(*await asyncio.open_connection("127.0.0.1", front.port, ssl=context))
        return cls(*await asyncio.open_unix_connection(front.address))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        headers = [tuple(line.split(b": ", 1)) for line in lines[1:]]
        return int(lines[0].split(b" ")[1]), headers  # type: ignore[return-value]

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self, *, to_head: bool = False) -> Answer:
        status, headers = await self.head()
        fields = dict(headers)
        body = b""
        if to_head or status in (100, 204, 304):
            pass
        elif b"content-length" in fields:
            body = await self.reader.readexactly(int(fields[b"content-length"]))
        elif fields.get(b"transfer-encoding") == b"chunked":
            pieces = []
            while piece := await self.chunk():
                pieces.append(piece)
            body = b"".join(pieces)
        else:
            body = await self.reader.read()
        return Answer(status, headers, body)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Everything until the server closes; then this side closes too."""
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await self.reader.read()
        await self.close()
        return rest

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


class Recorder:
    """A handler that keeps what it gets; answers at once unless ``hold``."""

    def __init__(self, *, hold: bool = False) -> None:
        self.hold = hold
        self.seen: list[Exchange] = []
        self.gone: list[Exchange] = []
        self._changed = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        exchange.on_gone = lambda: self._gone(exchange)
        self._changed.set()
        if not self.hold:
            text = b"%b %b %b" % (
                exchange.head.method.encode(),
                exchange.head.path.encode(),
                exchange.body,
            )
            exchange.respond(200, ((b"content-type", b"text/plain"),), text)

    def _gone(self, exchange: Exchange) -> None:
        self.gone.append(exchange)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on what the handler saw."""
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), TIMEOUT_S)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition of the server that nothing announces."""

    async def poll() -> None:
        while not condition():  # noqa: ASYNC110  (nothing announces it)
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), TIMEOUT_S)


@contextlib.asynccontextmanager
async def serve(handler: Callable[[Exchange], None], **options: Any) -> AsyncIterator[Front]:
    """A front for ``handler``; at the end nothing may be left of any connection."""
    options.setdefault("port", 0)
    limits = options.pop("limits", {})
    front = await listen(handler, FrontOptions(limits=Limits(**limits), **options))
    try:
        yield front
    finally:
        await front.close(0.0)
    assert (front.connections, front.exchanges, front.arriving_bytes) == (0, 0, 0)


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, TIMEOUT_S)


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, 2 * TIMEOUT_S))


@pytest.fixture
def wire() -> SimpleNamespace:
    """The parts above; test modules cannot import them from here."""
    return SimpleNamespace(
        Client=Client,
        Recorder=Recorder,
        TIMEOUT_S=TIMEOUT_S,
        eventually=eventually,
        run=run,
        serve=serve,
        within=within,
    )
