"""The HTTP/1.1 client of one upstream: a bounded pool of keep-alive connections.

Nothing here reads slower because a client reads slower: what an engine computes goes to the log.
All four time limits are counted by one sweep of the whole pool, so they are exact to about a sweep.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.connection import Connection, Write, at_once
from headrace.engines.limits import Limits, Ticks
from headrace.engines.origin import Origin, with_body
from headrace.engines.response import Collect, Response, ResponseSink

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Body of an answer that is collected as a whole."""


class _Dial:
    """A connection being made, for the call that needs it."""

    __slots__ = ("call", "expired", "task", "ticks")

    def __init__(self, call: ResponseSink, ticks: int) -> None:
        self.call = call
        self.ticks = ticks
        self.expired = False
        self.task: asyncio.Task[None] | None = None


class Pool:
    """Sends requests to one :class:`Origin`. Belongs to the event loop it was made in."""

    def __init__(
        self,
        origin: Origin,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        write: Write = at_once,
    ) -> None:
        """``tls``: the context for an https origin; without one the system's authorities decide.
        ``write``: sends requests."""
        self.origin = origin
        self.limits = limits or Limits()
        self.patience = Ticks.of(self.limits)
        self.write = write
        self._tls = (tls or ssl.create_default_context()) if origin.scheme == "https" else None
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._dials: set[_Dial] = set()
        self._waiting: deque[ResponseSink] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._stands = self._closed = False
        self._left_s = 0.0

    @property
    def open_connections(self) -> int:
        """Connections made or being made; idle ones too."""
        return len(self._connections) + len(self._dials)

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def send(self, request: bytes, call: ResponseSink) -> ResponseSink:
        """Send a whole request (:func:`~headrace.engines.origin.with_body`); returns ``call``. Never calls
        it before it has returned."""
        call.request = request
        if self._idle:  # as nearly always: the one used last
            connection, _ = self._idle.popitem()
            if connection.start(call):
                return call
        self._place(call)
        return call

    async def fetch(
        self, method: str, path: str, body: bytes = b"", max_bytes: int = MAX_ANSWER_BYTES
    ) -> Response:
        """One whole answer, whatever its status. Raises what the sink would have been told."""
        headers = (("content-type", "application/json"),) if body else ()
        return await self.collect(
            with_body(self.origin.head(method, path, headers), body), max_bytes
        )

    async def collect(self, request: bytes, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        """:meth:`fetch` for a request that is put together already."""
        done: asyncio.Future[Response] = self._loop.create_future()

        def whole(response: Response) -> None:
            if not done.done():
                done.set_result(response)

        def failed(error: HeadraceError) -> None:
            if not done.done():
                done.set_exception(error)

        call = self.gather(request, whole, failed, max_bytes)
        try:
            return await done
        finally:
            call.cancel()

    def gather(
        self,
        request: bytes,
        whole: Callable[[Response], None],
        failed: Callable[[HeadraceError], None],
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> ResponseSink:
        """:meth:`send` for who wants the whole answer at once: exactly one of the two is called."""
        return self.send(request, Collect(whole, failed, max_bytes))

    def fail_all(self, error: HeadraceError) -> None:
        """Fail what is under way and close all connections."""
        calls = [*self._waiting, *(dial.call for dial in self._dials)]
        calls += [connection.call for connection in self._connections if connection.call]
        self._waiting.clear()
        for call in calls:
            _fail(call, error)
        for connection in list(self._connections):
            connection.abort()

    def stands(self, still: bool) -> None:
        """Its upstream was stopped by us, or goes on: no time limit counts meanwhile. Idempotent."""
        if still is self._stands:
            return
        self._stands = still
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            self._left_s = max(sweeper.when() - self._loop.time(), 0.0)
            sweeper.cancel()
        else:
            self._sweep_in(self._left_s)

    async def close(self) -> None:
        """Fail what is under way with ``ENGINE_UNAVAILABLE``, close all connections; idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.fail_all(self._unavailable("is closed"))
        tasks = [dial.task for dial in self._dials if dial.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What connections say.

    def idle(self, connection: Connection) -> None:
        if self._waiting or self._closed:
            self._employ(connection)
        else:
            self._idle[connection] = None

    def _employ(self, connection: Connection) -> None:
        call = self._next_waiting()
        if call is not None:
            self._start(connection, call)
        elif self._closed:
            connection.abort()
        else:
            self._idle[connection] = None

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        call = self._next_waiting()
        if call is not None:
            self._place(call)

    def repeat(self, call: ResponseSink) -> None:
        if self.open_connections <= self.limits.max_connections:
            self._dial(call)
        else:
            self._waiting.appendleft(call)

    # Where a call goes.

    def _place(self, call: ResponseSink) -> None:
        """On an idle connection (the one used last), a new one, or into the line."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.start(call):
                return
        if self._closed:
            self._refuse(call, "is closed")
        elif self.open_connections < self.limits.max_connections:
            self._dial(call)
        elif self._has_room():
            self._waiting.append(call)
        else:
            self._refuse(call, f"has all its {self.limits.max_connections} connections busy")

    def _has_room(self) -> bool:
        if len(self._waiting) >= self.limits.max_waiting:
            self._waiting = deque(call for call in self._waiting if not call.over)
        return len(self._waiting) < self.limits.max_waiting

    def _next_waiting(self) -> ResponseSink | None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.over:
                return call
        return None

    def _refuse(self, call: ResponseSink, why: str) -> None:
        self._loop.call_soon(_fail, call, self._unavailable(why))

    def _unavailable(self, why: str) -> HeadraceError:
        return HeadraceError(Code.ENGINE_UNAVAILABLE, f"The engine at {self.origin} {why}.")

    # New connections.

    def _dial(self, call: ResponseSink) -> None:
        dial = _Dial(call, self.patience.connect)
        self._dials.add(dial)
        dial.task = self._loop.create_task(self._connect(dial))
        self._sweep_in(self.limits.sweep_s)

    async def _connect(self, dial: _Dial) -> None:
        origin = self.origin
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self, str(origin)), origin.host, origin.port, ssl=self._tls
            )
            if not connection.usable:
                raise ConnectionResetError("it closed the new connection")
        except asyncio.CancelledError:
            self._dials.discard(dial)
            if not dial.expired:
                raise
            self._not_connected(dial.call, self._slow_connect())
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
            self._dials.discard(dial)
            self._not_connected(dial.call, self._unavailable(f"cannot be reached: {error}"))
        else:
            self._dials.discard(dial)
            self._connections.add(connection)
            self._connected(connection, dial.call)

    def _connected(self, connection: Connection, call: ResponseSink) -> None:
        connection.ticks = self.patience.idle
        if call.over:
            self.idle(connection)
        else:
            self._start(connection, call)

    def _start(self, connection: Connection, call: ResponseSink) -> None:
        if not connection.start(call):
            self.repeat(call)

    def _not_connected(self, call: ResponseSink, error: HeadraceError) -> None:
        _fail(call, error)
        waiting = self._next_waiting()
        if waiting is not None:
            self._place(waiting)

    def _slow_connect(self) -> HeadraceError:
        why = f"took longer than {self.limits.connect_s:g} s to accept a connection"
        return HeadraceError(Code.ENGINE_TIMEOUT, f"The engine at {self.origin} {why}.")

    # Time.

    def _sweep(self) -> None:
        """One look at everything that may take too long."""
        self._sweeper = None
        for dial in list(self._dials):
            dial.ticks -= 1
            if dial.ticks < 0 and dial.task is not None:
                dial.expired = True
                dial.task.cancel()
        late = []
        for connection in self._connections:
            connection.ticks -= 1
            if connection.ticks < 0:
                late.append(connection)
        for connection in late:
            connection.expire()
        self._sweep_in(self.limits.sweep_s)

    def _sweep_in(self, after_s: float) -> None:
        """Unless that is to be anyway, there is nothing to look at, or the time does not count."""
        if self._sweeper is not None:
            return
        self._left_s = after_s
        if self.open_connections and not self._stands:
            self._sweeper = self._loop.call_later(after_s, self._sweep)


def _fail(call: ResponseSink, error: HeadraceError) -> None:
    connection, call.connection = call.connection, None
    if connection is not None:
        connection.leave()
    if not call.over:
        call.failed(error)
        call.over = True
