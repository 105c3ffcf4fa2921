"""One keep-alive connection to an upstream: at most one call at a time, answers parsed by llhttp.

What a read brought is first parsed, then handed over: head, all body bytes as one piece, end. Time
limits are counted in the pool's sweeps (``ticks``), so no timer belongs to a call. The parser does
not know about HEAD, which is never asked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.limits import Ticks
from headrace.engines.response import Headers, ResponseSink, lower

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


Write = Callable[[asyncio.Transport, bytes], None]
"""Sends bytes on a transport, soon: may gather what one turn of the event loop sends."""


def at_once(transport: asyncio.Transport, data: bytes) -> None:
    """A ``Write`` that gathers nothing."""
    transport.write(data)


class Owner(Protocol):
    """The pool, as its connections see it."""

    patience: Ticks
    write: Write

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
        "_fields",
        "_head_told",
        "_headers",
        "_keep",
        "_owner",
        "_parser",
        "_parts",
        "_quiet_bytes",
        "_status",
        "_transport",
        "_upstream",
        "_used",
        "call",
        "on_body",
        "on_header",
        "ticks",
    )

    def __init__(self, owner: Owner, upstream: str) -> None:
        self._owner = owner
        self._upstream = upstream
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._fields: Headers = {}
        self._headers: Headers = {}
        # llhttp tells headers and body to methods of C: no frame of Python for each of them.
        self.on_header = self._fields.__setitem__
        self.on_body = self._parts.append
        self._parser: Any = httptools.HttpResponseParser(self)
        self._status = self._quiet_bytes = self.ticks = 0
        self._head_told = self._body_came = self._complete = self._keep = self._used = False
        self.call: PendingCall | None = None

    def start(self, call: PendingCall) -> bool:
        """Send a call's request. False: it cannot be sent here, the connection is closing."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self._status = self._quiet_bytes = 0
        self._head_told = self._body_came = self._complete = False
        self.call = call
        call.connection = self
        self.ticks = self._owner.patience.first_byte
        self._owner.write(transport, call.request)
        return True

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

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("more bytes than the answer has")
        self._fields.clear()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._headers = self._fields.copy()  # without the trailers, which come later

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._status = 0
        else:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """One read, parsed and handed over. Hot: one frame for what comes with every event."""
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
        if not self._head_told and self._status >= 200:
            self._head_told = True
            call.sink.head(self._status, self._headers)
        parts = self._parts
        if parts:
            body = b"".join(parts)
            parts.clear()
            self._body_came = True
            self._quiet_bytes = 0
            self.ticks = self._owner.patience.between_bytes
            if self.call is call:
                call.sink.body(body)
        else:
            self._quiet_bytes += len(data)
        if self.call is not call:  # it was cancelled by what it was told
            return
        if self._complete:
            self._finish(call, clean=not fault)
        elif fault or self._quiet_bytes > MAX_QUIET_BYTES:
            self._break(Code.ENGINE_FAILED, fault or "sent a head that does not end")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        call = self.call
        if call is not None:
            self._lost_with(call, exc)
        self._owner.lost(self)

    # Handing over.

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
        if exc is None and self._status >= 200 and self._ends_with_connection():
            self._finish(call, clean=False)
        elif call.request and self._used and not call.repeated:
            self.call = call.connection = None
            call.repeated = True
            self._owner.repeat(call)
        elif call.request:
            self._break(Code.ENGINE_FAILED, "closed the connection without an answer")
        else:
            self._break(Code.ENGINE_FAILED, "broke off in the middle of its answer")

    def _ends_with_connection(self) -> bool:
        """Whether the answer has no length of its own (RFC 9112, 6.3)."""
        named = lower(self._headers)
        framed = b"content-length" in named or b"transfer-encoding" in named
        return not framed and self._status not in (204, 304)

    def _break(self, code: Code, what: str) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.connection = None
            call.sink.failed(HeadraceError(code, f"The engine at {self._upstream} {what}."))
