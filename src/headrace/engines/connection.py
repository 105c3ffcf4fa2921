"""One keep-alive connection to an upstream: at most one call at a time, answers parsed by llhttp.

What a read brought is first parsed, then handed over: head, all body bytes as one piece, end. Time
limits are counted in the pool's sweeps (``ticks``), so no timer belongs to a call. The parser does
not know about HEAD, which is never asked here.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import httptools

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.limits import Ticks
from headrace.engines.response import Headers, ResponseSink

MAX_QUIET_BYTES = 64 * 1024
"""Bytes that an upstream may send without any of them being body: head, trailers, extensions."""


class PendingCall:
    """A call from the moment it is asked for. ``request`` is kept until a byte of the answer came,
    for the one repetition that a connection closed while idle deserves."""

    __slots__ = ("cancelled", "connection", "repeated", "request", "sink")

    def __init__(self, request: bytes, sink: ResponseSink) -> None:
        self.request = request
        self.sink = sink
        self.connection: Connection | None = None
        self.repeated = False
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.call = None
            connection.abort()


class Owner(Protocol):
    """The pool, as its connections see it."""

    patience: Ticks

    def idle(self, connection: Connection) -> None:
        """It may serve the next call."""

    def lost(self, connection: Connection) -> None:
        """It is closed. Its call, if it had one, has been told."""

    def repeat(self, call: PendingCall) -> None:
        """The connection was closed by the upstream while the request was on its way."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_body_came",
        "_complete",
        "_head_sent",
        "_headers",
        "_keep",
        "_owner",
        "_parser",
        "_parts",
        "_quiet_bytes",
        "_status",
        "_transport",
        "_until_close",
        "_upstream",
        "_used",
        "call",
        "ticks",
    )

    def __init__(self, owner: Owner, upstream: str) -> None:
        self._owner = owner
        self._upstream = upstream
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._used = False
        self.call: PendingCall | None = None
        self.ticks = 0
        self._expect()

    def _expect(self) -> None:
        self._status = 0
        self._headers: Headers = []
        self._head_sent = self._body_came = self._complete = False
        self._keep = self._until_close = False
        self._quiet_bytes = 0

    def start(self, call: PendingCall) -> None:
        """Send a call's request."""
        assert self._transport is not None
        self._expect()
        self.call = call
        call.connection = self
        self.ticks = self._owner.patience.first_byte
        self._transport.write(call.request)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close now, without sending what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The pool's sweep found ``ticks`` used up."""
        if self.call is not None:
            where = "in the middle of" if self._body_came else "before"
            self._break(Code.ENGINE_TIMEOUT, f"was silent for too long {where} its answer")
        self.abort()

    # What llhttp calls, while a read is parsed.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # not the trailers
            self._headers.append((name.lower(), value))

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("more bytes than the answer has")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            names = {name for name, _ in self._headers}
            framed = b"content-length" in names or b"transfer-encoding" in names
            self._until_close = not framed and self._status not in (204, 304)
            self._keep = self._parser.should_keep_alive() and not self._until_close

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._status, self._headers = 0, []
        else:
            self._complete = True

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.abort()
            return
        call.request = b""
        fault = ""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            fault = f"did not speak HTTP/1.1: {error.__context__ or error}"
        self._deliver(call, len(data), fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        call = self.call
        if call is not None:
            self._lost_with(call, exc)
        self._owner.lost(self)

    # Handing over.

    def _deliver(self, call: PendingCall, size: int, fault: str) -> None:
        if not self._head_sent and self._status >= 200:
            self._head_sent = True
            call.sink.head(self._status, self._headers)
        parts = self._parts
        if parts and self.call is call:
            self._parts = []
            self._body_came = True
            self._quiet_bytes = 0
            self.ticks = self._owner.patience.between_bytes
            call.sink.body(parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            self._quiet_bytes += size
        if self.call is not call:
            return
        if self._complete:
            self._finish(call, clean=not fault)
        elif fault or self._quiet_bytes > MAX_QUIET_BYTES:
            self._break(Code.ENGINE_FAILED, fault or "sent a head that does not end")
            self.abort()

    def _finish(self, call: PendingCall, clean: bool) -> None:
        """The answer is complete. The connection goes on if both sides are through with it."""
        self.call = call.connection = None
        transport = self._transport
        if clean and self._keep and transport is not None and not transport.get_write_buffer_size():
            self._used = True
            self.ticks = self._owner.patience.idle
            self._owner.idle(self)
        else:
            self.abort()
        call.sink.end()

    def _lost_with(self, call: PendingCall, exc: Exception | None) -> None:
        if self._until_close and exc is None:
            self._finish(call, clean=False)
        elif call.request and self._used and not call.repeated:
            self.call = call.connection = None
            call.repeated = True
            self._owner.repeat(call)
        elif call.request:
            self._break(Code.ENGINE_FAILED, "closed the connection without an answer")
        else:
            self._break(Code.ENGINE_FAILED, "broke off in the middle of its answer")

    def _break(self, code: Code, what: str) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.connection = None
            call.sink.failed(HeadraceError(code, f"The engine at {self._upstream} {what}."))
