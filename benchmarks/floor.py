"""The floor: the least that a Python gateway can do on uvloop. It moves bytes and understands none.

Not a server to use: no limits, no time-outs, no checks. It shows what any Python gateway must pay for
two sockets, their wake-ups and the framing of a request; the rest is what Headrace's features cost.
Run: ``python -m benchmarks.floor PORT UPSTREAM_PORT``.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import Protocol, Transport
from typing import cast

import uvloop

END_OF_CHUNKS = b"0\r\n\r\n"


def _length_after_head(data: bytes, head_end: int) -> int | None:
    """Bytes of the body by content-length; None for a chunked one."""
    head = data[:head_end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return None if b"transfer-encoding: chunked" in head else 0
    line_end = head.find(b"\r\n", at)
    return int(head[at + 15 : line_end if line_end > 0 else head_end])


class Upstream(Protocol):
    """A kept connection to the engine: passes an answer through and tells when it is complete."""

    def __init__(self, pool: list[Upstream]) -> None:
        self._pool = pool
        self.transport: Transport | None = None
        self.client: Client | None = None
        self._remaining: int | None = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(Transport, transport)

    def ask(self, client: Client, request: bytes) -> None:
        self.client, self._remaining = client, -1
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None or client.transport is None:
            return
        client.transport.write(data)
        if self._remaining == -1:
            head_end = data.find(b"\r\n\r\n")
            body = _length_after_head(data, head_end)
            self._remaining = None if body is None else body - (len(data) - head_end - 4)
        elif self._remaining is not None:
            self._remaining -= len(data)
        if self._remaining == 0 or (self._remaining is None and data.endswith(END_OF_CHUNKS)):
            self.client = None
            self._pool.append(self)
            client.answered()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self in self._pool:
            self._pool.remove(self)
        if self.client is not None and self.client.transport is not None:
            self.client.transport.abort()


class Client(Protocol):
    """A client's connection: collects one request, then waits for its answer."""

    def __init__(self, pool: list[Upstream], upstream_port: int) -> None:
        self._pool = pool
        self._upstream_port = upstream_port
        self.transport: Transport | None = None
        self._received = b""
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0 or self._upstream is not None:
            return
        end = head_end + 4 + (_length_after_head(self._received, head_end) or 0)
        if len(self._received) < end:
            return
        request, self._received = self._received[:end], self._received[end:]
        if self._pool:
            self._upstream = self._pool.pop()
            self._upstream.ask(self, request)
        else:
            self._connecting = asyncio.ensure_future(self._connect(request))

    async def _connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, self._upstream = await loop.create_connection(
            lambda: Upstream(self._pool), "127.0.0.1", self._upstream_port
        )
        self._upstream.ask(self, request)

    def answered(self) -> None:
        self._upstream = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._upstream is not None and self._upstream.transport is not None:
            self._upstream.transport.abort()


async def serve(port: int, upstream_port: int) -> None:
    pool: list[Upstream] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: Client(pool, upstream_port), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
