"""``Outbox``: what one turn of the event loop has to send is written together, at the turn's end.

Written one by one in the middle of other work, every write wakes a peer that has fallen asleep since the
last one, and leaves cold caches behind: on a busy server that was a fifth of a request. Written in a row
they find the peer awake. Where turns have a single write each, as with few busy streams, waiting for the
turn's end would only cost, so then most go out at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

_log = logging.getLogger("headrace.front")

MOST_WRITES = 32
"""Waiting writes; at the bound they are written at once, so that nobody waits for a long turn's end."""
MOST_BYTES = 32 * 1024
"""Waiting bytes, likewise: what a transport does not know of cannot push back."""
LARGE_BYTES = 8 * 1024
"""Data that does not wait."""
LONELY_TURNS = 4
"""Turns with a single write after which the next ``DIRECT_WRITES`` do not wait."""
DIRECT_WRITES = 15


class Transport(Protocol):
    """The part of ``asyncio.Transport`` that is needed."""

    def write(self, data: bytes | memoryview) -> None: ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...


class Outbox:
    """One an event loop, for all its sockets. Keeps the order of everything that goes through it; who closes
    a transport, or writes past it, calls :meth:`flush` before."""

    __slots__ = ("_bytes", "_direct", "_lonely", "_loop", "_scheduled", "_waiting")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[Transport, bytes | memoryview]] = []
        self._bytes = 0
        self._scheduled = False
        self._lonely = 0
        self._direct = 0

    def write(self, transport: Transport, data: bytes | memoryview) -> None:
        """Send, at the end of this turn at the latest. Dropped if the transport closes before."""
        waiting = self._waiting
        size = len(data)
        if size >= LARGE_BYTES:
            self.flush()
            transport.write(data)
        elif self._direct and not waiting:
            self._direct -= 1
            transport.write(data)
        else:
            waiting.append((transport, data))
            self._bytes += size
            if not self._scheduled:
                self._schedule()
            elif len(waiting) >= MOST_WRITES or self._bytes >= MOST_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._bytes = 0
            for transport, data in waiting:
                try:
                    if not transport.is_closing():
                        transport.write(data)
                except Exception:  # noqa: BLE001 - one client's transport must not cost the others their bytes
                    _log.exception("a transport could not be written to and is aborted")
                    transport.abort()

    def _schedule(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._scheduled = True
        self._loop.call_soon(self._turn_ends)

    def _turn_ends(self) -> None:
        self._scheduled = False
        if len(self._waiting) == 1:
            self._lonely += 1
            if self._lonely >= LONELY_TURNS:
                self._direct = DIRECT_WRITES
        else:
            self._lonely = self._direct = 0
        self.flush()
