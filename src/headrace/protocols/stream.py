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
from headrace.domain.event import Error, Event, Token
from headrace.protocols.call import Call
from headrace.protocols.encoder import NO_WRITERS, Encoder, Framing, encode_json
from headrace.protocols.errors import from_event, named
from headrace.protocols.follower import Follower
from headrace.protocols.port import Generation

HEARTBEAT_ROUNDS = 3
"""Sweeps without a byte after which a stream gets a heartbeat."""


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


class ClientStream(Follower):
    """One reader of one log. ``reading``: this is no answer to a request, only a look at its log. An error
    is then an event like any other, and leaving never cancels: it only starts the grace again where the
    generation has one."""

    __slots__ = (
        "_call",
        "_encode",
        "_encoder",
        "_flows",
        "_framing",
        "_generation",
        "_quiet_rounds",
        "_reading",
        "_send",
        "_streams",
        "_writers",
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
        super().__init__(open_streams)
        self._streams = open_streams
        self._call = call
        self._send = call.exchange.send
        self._generation = generation
        self._encoder = encoder
        self._encode = encoder.encode
        self._writers = encoder.writers
        self._framing = framing
        self._reading = reading
        self._flows = False
        """Whether the head is out and the end is not."""
        self._quiet_rounds = 0

    def attach(self) -> None:
        """Begin to read; what the log has already is sent before this returns."""
        exchange = self._call.exchange
        exchange.on_gone = self._gone
        exchange.on_drain = self._drained
        self._streams.add(self)
        if self._reading:
            self._start_alone()
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
        last = events[-1]
        try:
            if (
                len(events) == 1
                and type(last) is Token
                and last.logprobs is None
                and last.tool_calls is None
                and not last.reasoning
                and last.index in self._writers
            ):  # as nearly always: then nobody has to be asked, and nothing begins or ends
                self._quiet_rounds = 0
                if self._send(self._writers[last.index]((last.seq, encode_json(last.text)))):
                    return True
                self._lagging = True
                return False
            data = self._encode(events) if self._flows else self._first(events)
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            self._close()
            self._call.crash()
            return True
        if data:
            self._quiet_rounds = 0
            if not self._send(data):
                self._lagging = True
        if last.end is not None and not self._closed:
            self._close()
            self._call.exchange.end()
        return not self._lagging

    def lost(self, error: HeadraceError) -> None:
        """The log cannot be read on: say so and stop."""
        if self._closed:
            return
        self._close()
        if self._call.streams:
            self._call.exchange.send(self._encoder.lost(error))
            self._call.exchange.end()
        else:
            self._call.fail(error, named(self._generation))

    def sweep(self) -> None:
        """One round without a byte; the last of ``HEARTBEAT_ROUNDS`` sends a heartbeat."""
        self._quiet_rounds += 1
        if self._quiet_rounds < HEARTBEAT_ROUNDS or self._lagging:
            return
        self._quiet_rounds = 0
        if not self._flows:
            self._start_alone()
        if heartbeat := self._encoder.heartbeat:
            self._call.exchange.send(heartbeat)

    def _first(self, events: Sequence[Event]) -> bytes:
        """The first events: they open the stream, are not shown at all, or are an HTTP error."""
        if self._closed:
            return b""
        end = events[-1]
        if isinstance(end, Error):
            data = self._encode(events[:-1])
            if not data:
                self._close()
                self._call.fail(from_event(end), named(self._generation))
                return b""
            data += self._encode(events[-1:])
        else:
            data = self._encode(events)
        if data or self._generation.caller.leaving.durable:
            self._start()
            return self._framing.preamble + data
        return b""

    def _start(self) -> None:
        self._flows = True
        self._call.start(self._framing.content_type, self._generation.id)

    def _start_alone(self) -> None:
        """The head before there is an event to follow it."""
        self._start()
        if self._framing.preamble:
            self._send(self._framing.preamble)

    def _close(self) -> None:
        super()._close()
        self._flows = False
        self._writers = NO_WRITERS
