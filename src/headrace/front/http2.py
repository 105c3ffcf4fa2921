"""HTTP/2 on the ``h2`` library: frames to exchanges and back, with the bounds the library leaves to us.

Chosen by ALPN, or by a client that begins with the preface. No server push: browsers removed it.

Back-pressure: a stream's bytes wait in its exchange, never in the transport, once the client's
windows or the transport's buffer are full; so a stream costs at most 64 KiB and one ``send``. What a
client can make us do for nothing is counted by :class:`Strain`; beyond it the connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from headrace.front.arrival import Arrival
from headrace.front.body import OpenBody
from headrace.front.connections import Connections
from headrace.front.exchange import HIGH_WATER_BYTES, Head
from headrace.front.http2_exchange import LOW_WATER_BYTES, Http2Exchange, answer_block
from headrace.front.http2_frames import FRAME_BYTES, Frames, block, status_field
from headrace.front.http2_request import begun, shared_head
from headrace.front.peer import certificate_names, peer_name
from headrace.front.refusal import Refusal
from headrace.front.strain import Strain

SLICE_BYTES = 16 * 1024
"""Received bytes that are worked on before the strain is looked at again."""
UPDATES = 1000
UPDATES_A_FRAME = 4
"""Window updates that a client may send: so many, and these for each frame that it got."""


class Http2Connection(asyncio.Protocol):
    """One client's connection. Implements ``Connection``."""

    def __init__(self, shared: Connections) -> None:
        self.shared = shared
        self.peer = ""
        self.certificate: tuple[str, ...] | None = None
        self.transport: Any = None
        self._frames = Frames(shared.limits)
        self._strain = Strain(shared.now)
        self._arrivals: dict[int, Arrival] = {}  # with _exchanges: at most Limits.streams
        self._exchanges: dict[int, Http2Exchange] = {}
        self._held: dict[int, Http2Exchange] = {}
        """Those with unsent bytes."""
        self._paused = False
        self._closing = False
        self._frames_sent = 0
        self._updates = 0
        self._written = 0
        self._progress = 0
        self._since = shared.now
        """When the last stream ended; while something is unsent, when the client last took some."""

    def take_over(self, transport: asyncio.Transport, received: bytes) -> None:
        """Speak HTTP/2 from here on, on a transport whose client has sent ``received``."""
        self.transport = transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self.peer = peer_name(transport)
        self.certificate = certificate_names(transport)
        self._frames.begin()
        if self.shared.enter(self) is not None:
            self._terminate(ErrorCodes.REFUSED_STREAM)
        else:
            self._flush()
            if received:
                self.data_received(received)

    # The transport's calls.

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), SLICE_BYTES):
            if self._closing:
                return
            self._work(data[at : at + SLICE_BYTES])
            self._flush()
        self._push_all()

    def eof_received(self) -> bool | None:
        self._lose()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        self.shared.leave(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._push_all()

    # What comes in.

    def _work(self, data: bytes) -> None:
        try:
            events = self._frames.receive_data(data)
        except ProtocolError:
            self._terminate(None)  # the library has prepared the GOAWAY
            return
        self._flush()  # settings are acknowledged before anything is sent under them
        now = self.shared.now
        for event in events:
            cost = self._on_event(event)
            if self._closing:
                return
            if cost and not self._strain.take(cost, now):
                self._terminate(ErrorCodes.ENHANCE_YOUR_CALM)
                return

    def _on_event(self, event: Event) -> int:
        """Act on it. How much strain it is."""
        if isinstance(event, DataReceived):
            return self._on_data(event)
        if isinstance(event, RequestReceived):
            self._on_request(event)
            return 0
        if isinstance(event, StreamEnded):
            self._on_complete(event.stream_id)
            return 0
        if isinstance(event, WindowUpdated):
            return self._on_window(event.stream_id)
        if isinstance(event, StreamReset):
            self._on_reset(event.stream_id)
            return 1
        if isinstance(event, ConnectionTerminated):
            self._lose()
            self._close()
            return 0
        return 0 if isinstance(event, TrailersReceived) else 1

    def _on_request(self, event: RequestReceived) -> None:
        stream = event.stream_id
        limits = self.shared.limits
        if self.shared.draining:
            self._try(self._frames.reset_stream, stream, ErrorCodes.REFUSED_STREAM)
            return
        ended = event.stream_ended is not None
        try:
            known = self.shared.http2_heads
            head, length, expects_continue = shared_head(event.headers, limits, known)
        except Refusal as refusal:
            self._refuse(stream, refusal, begun(event.headers, limits), ended=ended)
            return
        except ProtocolError:
            self._terminate(ErrorCodes.PROTOCOL_ERROR)
            return
        uploads = self.shared.uploads is not None and self.shared.uploads(head)
        if length > limits.body_bytes and not uploads:
            too_long = Refusal(413, f"the body is longer than {limits.body_bytes} bytes")
            self._refuse(stream, too_long, head, ended=ended)
            return
        opens = self.shared.opens is not None and self.shared.opens(head)
        if not (opens or uploads):
            body = OpenBody(limits.body_bytes)
            self._arrivals[stream] = Arrival(self.shared, head, body)
        if expects_continue and not ended and not opens:
            self._write(
                self._frames.fields(self._frames.streams[stream], status_field(100), last=False)
            )
        if opens or uploads:
            self._begin(stream, head, b"", arrives=True)

    def _on_data(self, event: DataReceived) -> int:
        stream = event.stream_id
        exchange = self._exchanges.get(stream)
        if exchange is not None and exchange.arrives:
            self.credit(stream, event.flow_controlled_length - len(event.data))
            if event.data:
                exchange.receive(bytes(event.data))
            return 0 if event.data or event.stream_ended else 1
        self.credit(stream, event.flow_controlled_length)
        arrival = self._arrivals.get(stream)
        if arrival is not None and event.data:
            try:
                arrival.take(bytes(event.data))
            except Refusal as refusal:
                self._forget(stream)
                ended = event.stream_ended is not None
                self._refuse(stream, refusal, arrival.head, ended=ended)
        return 0 if event.data or event.stream_ended else 1

    def _on_complete(self, stream: int) -> None:
        arrival = self._arrivals.pop(stream, None)
        if arrival is not None:
            self._begin(stream, arrival.head, arrival.close(), arrives=False)
            return
        exchange = self._exchanges.get(stream)
        if exchange is not None and exchange.arrives:
            exchange.receive(b"")

    def _begin(self, stream: int, head: Head, body: bytes, *, arrives: bool) -> None:
        window = self._frames.streams.get(stream)
        if window is None:  # reset by the client; its event is on the way
            return
        exchange = Http2Exchange(
            self,
            head,
            body,
            arrives=arrives,
            stream=stream,
            window=window,
            moved=self.shared.now,
        )
        self._exchanges[stream] = exchange
        try:
            self.shared.handler(exchange)
        except Exception:  # noqa: BLE001  (the boundary to the application)
            exchange.crash()

    def _on_window(self, stream: int) -> int:
        exchange = self._exchanges.get(stream)
        if exchange is not None:
            self.push(exchange)
        elif not stream:
            self._push_all()
        self._updates += 1
        return self._updates > UPDATES + UPDATES_A_FRAME * self._frames_sent

    def _on_reset(self, stream: int) -> None:
        self._forget(stream)
        exchange = self._let_go(stream)
        if exchange is not None:
            self.credit(stream, exchange.untaken)
            exchange.leave()
        self._rest()

    def credit(self, stream: int, size: int) -> None:
        """The client may send so many bytes more."""
        if size:
            self._try(self._frames.acknowledge_received_data, size, stream)
            self._flush()

    # What goes out.

    def send_fields(self, exchange: Http2Exchange, fields: bytes, *, last: bool) -> None:
        """A header block; ``last``: nothing follows it."""
        with contextlib.suppress(ProtocolError):
            self._write(self._frames.fields(exchange.window, fields, last=last))
        if last:
            self._done(exchange)

    def send_at_once(self, exchange: Http2Exchange, data: bytes) -> bool:
        """Send in one frame. False: that is not possible now."""
        frames, window, size = self._frames, exchange.window, len(data)
        if self._paused or size > FRAME_BYTES or size > frames.room(window):
            return False
        self._frames_sent += 1
        self._write(frames.data(window, data, last=False))
        return True

    def push(self, exchange: Http2Exchange) -> None:
        """Send of the exchange's bytes what may be sent now."""
        while self._push(exchange):
            pass
        if exchange.unsent and exchange.stream in self._exchanges:
            self._held[exchange.stream] = exchange

    def _push(self, exchange: Http2Exchange) -> bool:
        """Send one frame. False: nothing can be sent now."""
        unsent = exchange.unsent
        frames = self._frames
        if not unsent:
            exchange.moved = self.shared.now
            if exchange.ended:
                self._end(exchange)
            return False
        if self._paused:
            return False
        try:
            size = min(frames.room(exchange.window), len(unsent), FRAME_BYTES)
            if size <= 0:
                return False
            last = exchange.ended and not exchange.trailers and size == len(unsent)
            piece = frames.data(exchange.window, bytes(memoryview(unsent)[:size]), last=last)
        except ProtocolError:
            return False  # reset by the client; its event is on the way
        del unsent[:size]
        exchange.moved = self.shared.now
        self._frames_sent += 1
        self._write(piece)
        if last:
            self._done(exchange)
            return False
        if not unsent:
            self._held.pop(exchange.stream, None)
        if len(unsent) <= LOW_WATER_BYTES:
            exchange.drained()
        return True

    def _end(self, exchange: Http2Exchange) -> None:
        """All of the body is sent."""
        if exchange.trailers:
            self.send_fields(exchange, exchange.trailers, last=True)
            return
        with contextlib.suppress(ProtocolError):
            self._write(self._frames.data(exchange.window, b"", last=True))
        self._done(exchange)

    def _push_all(self) -> None:
        """Let the exchanges take turns, a frame each, while something can be sent."""
        moving = list(self._held.values())
        while moving and not self._paused:
            moving = [exchange for exchange in moving if self._push(exchange)]

    def reset(self, exchange: Http2Exchange) -> None:
        """Break the stream."""
        self._try(self._frames.reset_stream, exchange.stream, ErrorCodes.INTERNAL_ERROR)
        self._done(exchange)
        self._flush()

    def _refuse(self, stream: int, refusal: Refusal, head: Head | None, *, ended: bool) -> None:
        headers, body = self.shared.refuse(refusal.status, refusal.message, head)
        frames = self._frames
        window = frames.streams.get(stream)
        if window is None:  # reset by the client
            return
        more = [(b"content-length", b"%d" % len(body))] if body else []
        if refusal.status == 503:
            more.append((b"retry-after", b"1"))
        answer = answer_block(refusal.status, headers, self.shared.heads.date) + block(more)
        with contextlib.suppress(ProtocolError):
            fits = len(body) <= min(frames.room(window), FRAME_BYTES)
            self._write(frames.fields(window, answer, last=not body))
            if body and fits:
                self._write(frames.data(window, body, last=True))
            if not (ended and fits):
                frames.reset_stream(stream, ErrorCodes.NO_ERROR)
        self._rest()

    def _done(self, exchange: Http2Exchange) -> None:
        self._let_go(exchange.stream)
        if exchange.arrives:  # the answer is complete before the request is
            self._try(self._frames.reset_stream, exchange.stream, ErrorCodes.NO_ERROR)
            self.credit(exchange.stream, exchange.untaken)
            self._flush()
        self._rest()

    def _let_go(self, stream: int) -> Http2Exchange | None:
        self._held.pop(stream, None)
        return self._exchanges.pop(stream, None)

    def _rest(self) -> None:
        """A stream has ended."""
        if not self._exchanges and not self._arrivals:
            self._since = self.shared.now
            if self.shared.draining:
                self._close()

    def _try(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Tell the library; the client may have closed the stream just before."""
        with contextlib.suppress(ProtocolError):
            method(*arguments)

    def _flush(self) -> None:
        data = self._frames.data_to_send()
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.shared.outbox.write(self.transport, data)

    # The end.

    def _terminate(self, code: ErrorCodes | None) -> None:
        """Say why (None: the library has prepared that) and close, so that the client can read it."""
        if code is not None:
            self._try(self._frames.close_connection, code)
        self._flush()
        self._closing = True
        self._since = self.shared.now
        self._lose()
        self.shared.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self._since = self.shared.now
        self._flush()
        self.shared.outbox.flush()
        self.transport.close()

    def _lose(self) -> None:
        """Nothing more comes from the client: let go of what it had begun."""
        for stream in tuple(self._arrivals):
            self._forget(stream)
        self._held.clear()
        while self._exchanges:
            self._exchanges.popitem()[1].leave()

    def _forget(self, stream: int) -> None:
        arrival = self._arrivals.pop(stream, None)
        if arrival is not None:
            arrival.close()

    # The front's calls.

    @property
    def under_way(self) -> int:
        return len(self._exchanges)

    def drain(self) -> None:
        if self._closing:
            return
        self._write(self._frames.goaway())
        self._rest()

    def abort(self) -> None:
        self.shared.outbox.flush()
        self.transport.abort()

    def sweep(self, now: float) -> None:
        limits = self.shared.limits
        if self._closing:
            if now - self._since > limits.linger_s:
                self.abort()
        elif self._unsent(now):
            if now - self._since > limits.stall_s:
                self.abort()
        elif self._exchanges or self._arrivals:
            self._since = now
            self._sweep_streams(now)
        elif now - self._since > limits.idle_s:
            self._terminate(ErrorCodes.NO_ERROR)

    def _sweep_streams(self, now: float) -> None:
        for stream, arrival in tuple(self._arrivals.items()):
            if arrival.late(now):
                self._forget(stream)
                refusal = Refusal(408, "the body came too slowly")
                self._refuse(stream, refusal, arrival.head, ended=False)
        for exchange in tuple(self._exchanges.values()):
            if exchange.unsent and now - exchange.moved > self.shared.limits.stall_s:
                self.reset(exchange)
                exchange.leave()
        self._flush()

    def _unsent(self, now: float) -> bool:
        """Whether something is unsent; notes in ``_since`` when the client last took some."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            return False
        if self._written - unsent != self._progress:
            self._progress = self._written - unsent
            self._since = now
        return True
