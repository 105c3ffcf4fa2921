"""What the connections of one front share: limits, handler, clock, parser, and the list of who is open.

One coarse timer a front looks at all connections; none has a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from headrace.front.answer import AnswerHeads, Refuse
from headrace.front.exchange import Handler, Opens
from headrace.front.head import HeadParser
from headrace.front.limits import Limits
from headrace.front.outbox import Outbox

_log = logging.getLogger("headrace.front")

TICK_S = 1.0
"""How often the timer looks; limits are kept to within this."""


SpeakHttp2 = Callable[["Connections", Any, bytes], None]
"""Gives a transport, and what its client has sent, to an HTTP/2 connection."""


class Connection(Protocol):
    """A connection as its front sees it."""

    @property
    def under_way(self) -> int:
        """Exchanges that are being answered."""

    def sweep(self, now: float) -> None:
        """Close what has waited too long."""

    def drain(self) -> None:
        """Take no further request; close once what is under way is answered."""

    def abort(self) -> None:
        """Close now, unsent bytes are lost."""


class Connections:
    """The open connections of a front. All on one event loop; no locks."""

    def __init__(
        self,
        handler: Handler,
        refuse: Refuse,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        *,
        http2: SpeakHttp2,
        tls: bool,
        outbox: Outbox | None = None,
        opens: Opens | None = None,
        uploads: Opens | None = None,
        maps: Opens | None = None,
    ) -> None:
        self.handler = handler
        self.opens = opens
        self.uploads = uploads
        self.maps = maps
        self.refuse = refuse
        self.limits = limits
        self.http2 = http2
        self.tls = tls
        self.scheme = "https" if tls else "http"
        self.loop = loop
        self.outbox = outbox or Outbox()
        self.now = loop.time()
        """Time of the last tick on the loop's clock: stale by up to a tick, and free to read."""
        self.heads = AnswerHeads(time.time())
        self.parser = HeadParser(limits)
        self.http2_heads: dict[Any, Any] = {}
        """What HTTP/2 remembers of heads; bounded there."""
        self.open: set[Connection] = set()
        """At most ``limits.connections`` and a tenth of it that is being refused."""
        self.arriving = 0
        """Bodies that are not complete, but for those that are handed on as they come."""
        self.arriving_bytes = 0
        self.draining = False
        self._emptied: asyncio.Event = asyncio.Event()
        self._tick_s = min(TICK_S, *(s / 2 for s in _times(limits)))
        self._timer = loop.call_later(self._tick_s, self._tick)

    def enter(self, connection: Connection) -> int | None:
        """A connection opens. The status to refuse it with, 0 to drop it without a word, None: welcome."""
        count = len(self.open)
        most = self.limits.connections
        if count >= most + max(16, most // 10):
            return 0
        self.open.add(connection)
        return 503 if count >= most or self.draining else None

    def leave(self, connection: Connection) -> None:
        self.open.discard(connection)
        if not self.open:
            self._emptied.set()

    def under_way(self) -> int:
        return sum(connection.under_way for connection in self.open)

    async def empty(self, timeout_s: float) -> bool:
        """Wait until no connection is open. False: some still are after ``timeout_s``."""
        self._emptied.clear()
        if self.open:
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
            except TimeoutError:
                return False
        return True

    def drain(self) -> None:
        self.draining = True
        for connection in tuple(self.open):
            connection.drain()

    def abort(self) -> None:
        for connection in tuple(self.open):
            connection.abort()

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(self._tick_s, self._tick)
        self.now = now = self.loop.time()
        self.heads.renew(time.time())
        for connection in tuple(self.open):
            try:
                connection.sweep(now)
            except Exception:  # noqa: BLE001  (one connection must not stop the timer of all)
                _log.exception("a connection could not be swept and is aborted")
                connection.abort()


def _times(limits: Limits) -> tuple[float, ...]:
    return (limits.header_s, limits.body_s, limits.idle_s, limits.stall_s, limits.linger_s)
