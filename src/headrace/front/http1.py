"""HTTP/1.1 (and 1.0) on uvloop: one object a connection, one a request, no task and no timer for either.

The way of a request: ``data_received`` → ``_pump`` → ``_begin`` (→ ``_collect``) → handler; of its answer:
``Http1Exchange`` → transport. The requests of a connection are taken strictly one after the other;
what a client sends ahead waits, and beyond ``HELD_BYTES`` it is no longer read.

A client that closes its sending side while it waits for an answer counts as gone: a closed socket
and a half-closed one look the same until something is written. nginx and uvicorn decide alike.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any

import msgspec

from headrace.front.arrival import Arrival
from headrace.front.body import ChunkedBody, SizedBody
from headrace.front.connections import Connections
from headrace.front.exchange import HIGH_WATER_BYTES, Head, Part
from headrace.front.head import CHUNKED
from headrace.front.http1_exchange import Http1Exchange
from headrace.front.mapped_body import FEW, LARGE_BYTES, Filling, MappedBody
from headrace.front.peer import certificate_names, peer_name
from headrace.front.refusal import Refusal
from headrace.front.streamed import Streamed

LOW_WATER_BYTES = 16 * 1024
MOST_BYTES = 1 << 50
"""Of a body that is handed on as it comes: who takes it says how much it takes."""
HELD_BYTES = 64 * 1024
"""Received bytes of later requests above which a connection is no longer read."""
FORGET_S = 5.0
"""A connection that has been idle for so long no longer knows its last head."""
TURNS = 32
"""Requests of one connection that are taken before others get their turn."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What an HTTP/2 connection begins with (RFC 9113 §3.4)."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_KEEP = b"connection: keep-alive\r\n"
_NO_HEAD = Head("", "", "", ())
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

# The state of a connection. Up to _BODY it may take a request.
_IDLE = 0  # nothing of a request is here
_HEAD = 1  # part of a head is
_BODY = 2  # the head and part of the body are
_BUSY = 3  # a request is being answered
_LINGER = 4  # refused; what still comes is thrown away
_CLOSING = 5  # closes as soon as all is sent, or is closed


class Http1Connection(asyncio.Protocol):
    """One client's connection. Implements ``Connection``."""

    __slots__ = (
        "_arrival",
        "_exchange",
        "_filling",
        "_head",
        "_input",
        "_progress",
        "_pumping",
        "_reading",
        "_since",
        "_state",
        "_streamed",
        "certificate",
        "keep",
        "paused",
        "peer",
        "shared",
        "transport",
        "written",
    )

    transport: Any  # an asyncio.Transport; untyped, since its write takes bytes alone

    def __init__(self, shared: Connections) -> None:
        self.shared = shared
        self.peer = ""
        self.certificate: tuple[str, ...] | None = None
        self.keep = True
        """Whether the connection goes on after this answer."""
        self.paused = False
        """Whether more than ``HIGH_WATER_BYTES`` are unsent."""
        self.written = 0
        """Bytes given to the transport, roughly: its change tells progress."""
        self._progress = 0
        self._exchange: Http1Exchange | None = None
        self._arrival: Arrival | None = None
        self._filling: Filling | None = None
        """While the transport fills the memory of a long body, and calls :meth:`came`."""
        self._streamed: Streamed | None = None
        """The body that the request under way still gets."""
        self._head = _NO_HEAD
        """Of a request before, with a body: the next one may share it."""
        self._input = b""  # at most a head, or HELD_BYTES, and one read
        self._pumping = False
        self._reading = True
        self._state = _IDLE
        self._since = shared.now
        """When the state began; while something is unsent, when the client last took some."""

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self.shared
        self.transport = transport
        refused = shared.enter(self)
        if refused == 0:
            self._state = _CLOSING
            self.transport.abort()
            return
        if shared.tls:
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
                self._speak_http2(b"")
                return
            self.certificate = certificate_names(transport)
        self.transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self.peer = peer_name(transport)
        if refused is not None:
            self._refuse(refused, "too many connections; try again soon")

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _IDLE and not self._input and not self.paused:
            # Nearly always this is one whole request, with the head of the one before but for its length:
            # then its length is that of what follows the head, and nothing else is to be judged again.
            head = self._head
            start = data.find(b"\r\n\r\n") + 4
            length = len(data) - start
            if (
                head.after
                and data.startswith(b"%b%d%b" % (head.before, length, head.after))
                and length <= self.shared.limits.body_bytes
            ):
                self._serve(head, data[start:])
            else:
                self._input = data
                self._pump()
        elif self._streamed is not None:
            self._stream(data)
        elif state <= _BUSY:
            self._input = self._input + data if self._input else data
            self._pump()

    def eof_received(self) -> bool | None:
        self._lose()
        self._close()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.leave(self)
        self._state = _CLOSING
        self._lose()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None:
            self._exchange.drained()
        elif self._state < _BUSY and self._input:
            self._pump()

    # Requests.

    def _pump(self) -> None:
        """Take requests, while none is being answered and the client takes its answers."""
        if self._pumping:
            return
        self._pumping = True
        turns = TURNS
        while (
            self._state < _BUSY
            and self._input
            and not self.paused
            and (self._begin() if self._arrival is None else self._collect())
        ):
            turns -= 1
            if not turns:
                self.shared.loop.call_soon(self._pump)
                break
        self._pumping = False
        if self._streamed is not None:
            return
        self._read(len(self._input) <= HELD_BYTES or self._state in (_HEAD, _LINGER))

    def _begin(self) -> bool:
        """Take a head and, if all of it is here, the body. False: there is nothing to take now."""
        data = self._input
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or data[0] == 13:
            return self._wait_for_head(data)
        if data[:4] == b"PRI " and PREFACE.startswith(data[:24]) and not self.written:
            return self._wait_for_preface(data)
        parser = self.shared.parser
        try:
            head = parser.parse(data if end == len(data) else data[:end])
        except Refusal as refusal:
            return self._refuse(refusal.status, refusal.message, parser.begun(data))
        if head.after:
            self._head = head
        stop = end + parser.length
        if end <= stop <= len(data) and stop - end <= self.shared.limits.body_bytes:
            self._input = data[stop:]
            self._serve(head, data[end:stop])
            return True
        return self._wait_for_body(head, data[end:])

    def _serve(self, head: Head, body: bytes) -> None:
        self._exchange = exchange = Http1Exchange(self, head, body)
        self._state = _BUSY
        try:
            self.shared.handler(exchange)
        except Exception:  # noqa: BLE001  (the boundary to the application)
            exchange.crash()

    def _wait_for_head(self, data: bytes) -> bool:
        if data[:2] == b"\r\n":  # empty lines before a request are ignored (RFC 9112 §2.2)
            self._input = data.lstrip(b"\r\n")
        if self._state == _IDLE:
            self._state = _HEAD
            self._since = self.shared.now
        if data[0] == 13:
            return self._input is not data
        parser = self.shared.parser
        try:
            parser.probe(data)
        except Refusal as refusal:
            self._refuse(refusal.status, refusal.message, parser.begun(data))
        return False

    def _wait_for_preface(self, data: bytes) -> bool:
        if len(data) >= len(PREFACE):
            self._speak_http2(data)
        elif self._state == _IDLE:
            self._state = _HEAD
            self._since = self.shared.now
        return False

    def _wait_for_body(self, head: Head, data: bytes) -> bool:
        shared = self.shared
        parser = shared.parser
        if shared.uploads is not None and shared.uploads(head):
            self._serve_before_body(head, data)
            return True
        if parser.length > shared.limits.body_bytes:
            said = f"the body is longer than {shared.limits.body_bytes} bytes"
            return self._refuse(413, said, head)
        try:
            body = self._body_of(head, parser.length)
        except OSError:
            return self._refuse(503, "there is no memory for the body; try again soon", head)
        self._arrival = Arrival(shared, head, body)
        self._input = data
        self._state = _BODY
        self._since = shared.now
        if parser.expects_continue and not data and not head.http10:
            self.send(_CONTINUE)
        return True

    def _body_of(self, head: Head, length: int) -> SizedBody | MappedBody | ChunkedBody:
        """Raises as :class:`MappedBody`."""
        shared = self.shared
        if length == CHUNKED:
            return ChunkedBody(shared.limits.body_bytes)
        if length >= LARGE_BYTES and shared.maps is not None and shared.maps(head):
            return MappedBody(length, huge=shared.arriving < FEW)
        return SizedBody(length)

    def _collect(self) -> bool:
        """Take what is there of the body. False: more is to come."""
        arrival = self._arrival
        assert arrival is not None
        data = self._input
        self._input = b""
        try:
            rest = arrival.take(data)
        except Refusal as refusal:
            return self._refuse(refusal.status, refusal.message, arrival.head)
        if rest is None:
            if isinstance(arrival.body, MappedBody):
                self._fill(arrival.body)
            return False
        self._input = rest
        self._arrival = None
        self._serve(arrival.head, arrival.close())
        return True

    def _fill(self, body: MappedBody) -> None:
        """Have what comes put where it belongs."""
        self._filling = Filling(self, body)
        self._listen(self._filling)

    def came(self, size: int) -> None:
        """So much of a body was put there."""
        arrival = self._arrival
        assert arrival is not None
        assert isinstance(arrival.body, MappedBody)
        complete = arrival.body.came(size)
        try:
            arrival.count(size, complete=complete)
        except Refusal as refusal:
            self._refuse(refusal.status, refusal.message, arrival.head)
            return
        if complete:
            self._end_filling()
            self._arrival = None
            self._serve(arrival.head, arrival.close())

    def _end_filling(self) -> None:
        if self._filling is not None:
            self._listen(self)
            self._filling.close()
            self._filling = None

    def _listen(self, protocol: asyncio.BaseProtocol) -> None:
        """Have it told what comes: a transport looks only when it begins to read."""
        if self._reading:
            self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if self._reading:
            self.transport.resume_reading()

    def _serve_before_body(self, head: Head, data: bytes) -> None:
        """Have a request answered that gets its body while it comes."""
        shared = self.shared
        length, expected = shared.parser.length, shared.parser.expects_continue
        body = ChunkedBody(MOST_BYTES) if length == CHUNKED else SizedBody(length)
        head = msgspec.structs.replace(head, plain=False)  # it may be that its answer has to close
        exchange = Http1Exchange(self, head, b"", arrives=True)
        self._streamed = streamed = Streamed(shared, exchange, body)
        self._exchange = exchange
        self._input = b""
        self._state = _BUSY
        self.keep = False  # until all of the body is here
        try:
            shared.handler(exchange)
        except Exception:  # noqa: BLE001  (the boundary to the application)
            exchange.crash()
        if self._streamed is not streamed:
            return  # it was refused
        if expected and not data and not head.http10:
            self.send(_CONTINUE)
        self._stream(data)

    def _stream(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        streamed = self._streamed
        assert streamed is not None
        try:
            rest = streamed.receive(data)
        except Refusal as refusal:
            self._refuse(refusal.status, refusal.message, streamed.exchange.head)
            return
        if self._streamed is not streamed:
            return  # it was answered before its end
        if rest is None:
            self._read(streamed.room)
            return
        self._end_streamed()
        self._input = rest
        self.keep = True
        self._read(len(rest) <= HELD_BYTES)
        streamed.exchange.receive(b"")

    def take(self, size: int) -> None:
        """So much of the body that arrives is done with."""
        streamed = self._streamed
        if streamed is not None:
            streamed.take(size)
            self._read(streamed.room)

    def _end_streamed(self) -> None:
        streamed, self._streamed = self._streamed, None
        if streamed is not None:
            streamed.close()

    def _speak_http2(self, data: bytes) -> None:
        self._state = _CLOSING  # this object's part ends
        self.shared.leave(self)
        self._input = b""
        self.shared.http2(self.shared, self.transport, data)

    # Answers.

    def closing_line(self, head: Head) -> bytes:
        """The ``connection`` header that the answer needs; settles whether the connection goes on."""
        if head.keep_alive and self.keep and not self.shared.draining:
            return _KEEP if head.http10 else b""
        self.keep = False
        return _CLOSE

    def send(self, data: Part) -> None:
        """Give bytes to the client; :attr:`paused` says when it has enough."""
        self.written += len(data)
        self.shared.outbox.write(self.transport, data)

    def answered(self) -> None:
        """The exchange is complete."""
        self._exchange = None
        if not self.keep or self.shared.draining:
            self._close()
            return
        self._state = _IDLE
        self._since = self.shared.now
        if self._input and not self._pumping:
            self._pump()

    def _refuse(self, status: int, message: str, head: Head | None = None) -> bool:
        """Answer and close, in a way that the client can read the answer while it still sends."""
        headers, body = self.shared.refuse(status, message, head)
        more = _CLOSE + b"retry-after: 1\r\n" if status == 503 else _CLOSE
        data = self.shared.heads.whole(status, headers, more, body)
        self.send(data)
        self._linger()
        return False

    def _linger(self) -> None:
        self._state = _LINGER
        self._since = self.shared.now
        self._lose()
        self._end_filling()
        self._read(True)
        self.shared.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Close when all is sent. With unread input the kernel would reset, and lose the answer."""
        if (self._input or self._streamed is not None) and self._state < _LINGER:
            self._linger()
            return
        self._state = _CLOSING
        self._since = self.shared.now
        self._end_filling()
        self.shared.outbox.flush()
        self.transport.close()

    def _lose(self) -> None:
        """Nothing more comes from the client: let go of what it had begun."""
        self._input = b""
        if self._arrival is not None:
            self._arrival.close()
            self._arrival = None
        self._end_streamed()
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            exchange.leave()

    def _read(self, on: bool) -> None:
        if on is not self._reading:
            self._reading = on
            if on:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # The front's calls.

    @property
    def under_way(self) -> int:
        return self._exchange is not None

    def drain(self) -> None:
        if self._state == _IDLE and not self._input:
            self._close()

    def abort(self) -> None:
        self.shared.outbox.flush()
        self.transport.abort()

    def sweep(self, now: float) -> None:
        state = self._state
        limits = self.shared.limits
        if state != _LINGER and self._unsent(now):
            if now - self._since > limits.stall_s:
                self.abort()
        elif state == _BUSY:
            self._since = now
            streamed = self._streamed
            if streamed is not None and streamed.late(now):
                self._refuse(408, "the body came too slowly", streamed.exchange.head)
            elif not self._reading and _hung_up(self.transport):
                self.abort()
        elif state == _IDLE:
            if now - self._since > limits.idle_s:
                self._close()
            elif now - self._since > FORGET_S:
                self._head = _NO_HEAD  # thousands of idle connections need not keep theirs
        elif state == _HEAD:
            if now - self._since > limits.header_s:
                said = f"the headers took longer than {limits.header_s:g} s"
                self._refuse(408, said, self.shared.parser.begun(self._input))
        elif state == _BODY:
            arrival = self._arrival
            if arrival is not None and arrival.late(now):
                self._refuse(408, "the body came too slowly", arrival.head)
        elif now - self._since > limits.linger_s:
            self.abort()

    def _unsent(self, now: float) -> bool:
        """Whether something is unsent; notes in ``_since`` when the client last took some."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            return False
        if self.written - unsent != self._progress:
            self._progress = self.written - unsent
            self._since = now
        return True


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the client has closed a connection that is not being read, so that nothing told us."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
    return bool(poll.poll(0))
