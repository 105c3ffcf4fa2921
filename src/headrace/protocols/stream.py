"""A client's stream: the reader of a log that writes what it reads to one exchange.

The answer to a request has its head with the first event that the format shows, so that an error which
comes first is a real HTTP status; with the first event of any kind where the generation outlives its
client (such a client needs its ``x-generation-id`` early); or with the first heartbeat. A log that is only
being read has its head at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Event, Finish
from headrace.protocols.call import Call
from headrace.protocols.encoder import Encoder, Framing
from headrace.protocols.errors import error_body, from_event
from headrace.protocols.port import Generation, Subscription

HEARTBEAT_ROUNDS = 3
"""Sweeps without a byte after which a stream gets a heartbeat."""


_ENDS = frozenset((Finish, Error))


class OpenStreams:
    """All streams under way, and the sweep that keeps silent ones alive: one timer for all of them.

    ``heartbeat_s``: a silent stream gets a comment after at most so many seconds. Bounded by the
    connections that the front allows.
    """

    def __init__(self, heartbeat_s: float) -> None:
        self._streams: set[ClientStream] = set()
        self._period_s = heartbeat_s / HEARTBEAT_ROUNDS
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: ClientStream) -> None:
        self._streams.add(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._period_s, self._sweep)

    def discard(self, stream: ClientStream) -> None:
        self._streams.discard(stream)

    def close(self) -> None:
        """Stop the sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        for stream in tuple(self._streams):
            stream.sweep()
        if self._streams:
            self._timer = asyncio.get_running_loop().call_later(self._period_s, self._sweep)


class ClientStream:
    """One reader of one log. ``reading``: this is no answer to a request, only a look at its log. An error
    is then an event like any other, and leaving never cancels: it only starts the grace again where the
    generation has one."""

    __slots__ = (
        "_call",
        "_closed",
        "_encoder",
        "_framing",
        "_generation",
        "_lagging",
        "_open",
        "_quiet_rounds",
        "_reading",
        "_send",
        "_started",
        "_subscription",
    )

    def __init__(
        self,
        call: Call,
        generation: Generation,
        encoder: Encoder,
        framing: Framing,
        open_streams: OpenStreams,
        *,
        reading: bool,
    ) -> None:
        self._call = call
        self._send = call.exchange.send
        self._generation = generation
        self._encoder = encoder
        self._framing = framing
        self._open = open_streams
        self._reading = reading
        self._started = False
        self._lagging = False
        self._closed = False
        self._quiet_rounds = 0
        self._subscription: Subscription | None = None

    def attach(self) -> None:
        """Begin to read; what the log has already is sent before this returns."""
        exchange = self._call.exchange
        exchange.on_gone = self._gone
        exchange.on_drain = self._drained
        self._open.add(self)
        if self._reading:
            self._start()
        counts = not self._reading or self._generation.caller.leaving.durable
        subscription = self._generation.attach(self, client=counts)
        if self._closed:
            subscription.close()
            return
        self._subscription = subscription
        if exchange.gone:
            self._gone()

    def events(self, events: Sequence[Event]) -> bool:
        """Encode and send as one piece; False while the client lags."""
        if self._closed:
            return True
        try:
            data = self._encoder.encode(events) if self._started else self._first(events)
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            self._close()
            self._call.crash()
            return True
        if data:
            self._quiet_rounds = 0
            self._lagging = not self._send(data)
        if type(events[-1]) in _ENDS and not self._closed:
            self._close()
            self._subscription = None  # it holds this reader: no cycle is left behind
            self._call.exchange.end()
        return not self._lagging

    def lost(self, error: HeadraceError) -> None:
        """The log cannot be read on: say so and stop."""
        if self._closed:
            return
        self._close()
        if self._started:
            self._call.exchange.send(self._framing.part(error_body(error)))
            self._call.exchange.end()
        else:
            self._call.fail(error, self._headers())

    def sweep(self) -> None:
        """One round without a byte; the last of ``HEARTBEAT_ROUNDS`` sends a heartbeat."""
        self._quiet_rounds += 1
        if self._quiet_rounds < HEARTBEAT_ROUNDS or self._lagging:
            return
        self._quiet_rounds = 0
        if not self._started:
            self._start()
        if self._framing.heartbeat:
            self._call.exchange.send(self._framing.heartbeat)

    def _first(self, events: Sequence[Event]) -> bytes:
        """The first events: they open the stream, are not shown at all, or are an HTTP error."""
        end = events[-1]
        if isinstance(end, Error):
            data = self._encoder.encode(events[:-1])
            if not data:
                self._close()
                self._call.fail(from_event(end), self._headers())
                return b""
            data += self._encoder.encode(events[-1:])
        else:
            data = self._encoder.encode(events)
        if data or self._generation.caller.leaving.durable:
            self._start()
        return data

    def _start(self) -> None:
        self._started = True
        self._call.start(
            [
                (b"content-type", self._framing.content_type),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                *self._headers(),
            ]
        )
        if self._framing.preamble:
            self._call.exchange.send(self._framing.preamble)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-generation-id", self._generation.id.encode())]

    def _close(self) -> None:
        """Take no more. The subscription holds this reader, so that letting go of it leaves no cycle."""
        self._closed = True
        self._subscription = None
        self._open.discard(self)

    def _gone(self) -> None:
        subscription = self._subscription
        self._close()
        if subscription is not None:
            subscription.close()

    def _drained(self) -> None:
        if self._lagging and self._subscription is not None:
            self._lagging = False
            self._subscription.resume()
