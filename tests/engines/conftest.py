"""Real parts for tests of engines: sockets that answer as told, sinks that remember."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.engines.response import ResponseSink

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A listening socket; ``handler`` gets each connection."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.url = ""
        self.gone: asyncio.Queue[int] = asyncio.Queue()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.stop: Callable[[], None] = lambda: None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.gone.put_nowait(number)
        finally:
            writer.transport.close()
            self.tasks.discard(task)

    async def close(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


class Heard(ResponseSink):
    """A response sink that remembers what it was told."""

    status: int = 0
    headers: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    bodies: list[bytes] = msgspec.field(default_factory=list)
    calls: list[str] = msgspec.field(default_factory=list)
    first: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    ended: asyncio.Future[HeadraceError | None] = msgspec.field(default_factory=_future)

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.calls.append("head")
        self.status, self.headers = status, headers

    def body(self, data: bytes) -> None:
        self.calls.append("body")
        self.bodies.append(data)
        self.first.set()

    def end(self) -> None:
        self.calls.append("end")
        self.ended.set_result(None)

    def failed(self, error: HeadraceError) -> None:
        self.calls.append("failed")
        self.ended.set_result(error)

    @property
    def text(self) -> bytes:
        return b"".join(self.bodies)


class Seen:
    """A sink of a run that remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[Delta]] = []
        self.prefills: list[tuple[int, int]] = []
        self.first = asyncio.Event()
        self.progressed = asyncio.Event()
        self.over: asyncio.Future[Outcome | HeadraceError] = (
            asyncio.get_running_loop().create_future()
        )

    def deltas(self, deltas: list[Delta]) -> None:
        assert not self.over.done()
        self.batches.append(deltas)
        self.first.set()

    def prefill(self, done: int, total: int) -> None:
        assert not self.over.done()
        self.prefills.append((done, total))
        self.progressed.set()

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        if deltas:
            self.deltas(list(deltas))
        self.over.set_result(outcome)

    def failed(self, error: HeadraceError) -> None:
        self.over.set_result(error)

    @property
    def all(self) -> list[Delta]:
        return [delta for batch in self.batches for delta in batch]

    def text(self, index: int = 0) -> str:
        return "".join(d.text for d in self.all if d.index == index and not d.reasoning)

    def ids(self, index: int = 0) -> tuple[int, ...]:
        return tuple(i for d in self.all if d.index == index for i in d.token_ids)


@pytest.fixture
def upstream() -> Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]:
    """``async with upstream(handler) as server``: a real server on a free port."""

    @contextlib.asynccontextmanager
    async def serve(handler: Handler, **options: Any) -> AsyncIterator[Upstream]:
        made = Upstream(handler)
        server = await asyncio.start_server(made.answer, "127.0.0.1", 0, **options)
        made.stop = server.close
        port = server.sockets[0].getsockname()[1]
        made.url = f"{'https' if options.get('ssl') else 'http'}://127.0.0.1:{port}"
        try:
            yield made
        finally:
            server.close()
            await made.close()

    return serve


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait for what has no event to wait for: another process, the kernel."""

    async def wait(condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def heard() -> type[Heard]:
    return Heard


@pytest.fixture
def seen() -> type[Seen]:
    return Seen


@pytest.fixture
def done(seen: type[Seen]) -> Callable[[Any, Any], Awaitable[tuple[Seen, Any]]]:
    """Run one work to its end; the sink, and how it ended."""

    async def go(engine: Any, work: Any) -> tuple[Seen, Any]:
        sink = seen()
        engine.stream_infer(work, sink)
        return sink, await sink.over

    return go
