"""One keep-alive connection to an upstream: at most one call at a time, answers parsed by llhttp.

What a read brought is first parsed, then handed over: head, all body bytes as one piece, end. Time
limits are counted in the pool's sweeps (``ticks``), so no timer belongs to a call. The parser does
not know about HEAD, which is never asked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.limits import Ticks
from headrace.engines.response import Headers, ResponseSink, lower

MAX_QUIET_BYTES = 64 * 1024
"""Bytes that an upstream may send without any of them being body: head, trailers, extensions."""

_log = logging.getLogger("headrace.engines")
_FAULTS = (httptools.HttpParserError, httptools.HttpParserUpgrade)

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

    def repeat(self, call: ResponseSink) -> None:
        """The connection was closed by the upstream while the request was on its way."""


class Connection(asyncio.Protocol):
    """llhttp tells all but a head's end to methods of C, so that no frame of Python belongs to it. An
    answer that begins takes a token from ``_due``: more bytes than the answer has find none there, which
    is a fault. Headers go into ``_fields``, which is never empty between the end of the head and the end
    of the answer, and empty after it. Body goes into ``_parts``.
    """

    __slots__ = (
        "_due",
        "_fields",
        "_headers",
        "_keep",
        "_owner",
        "_parser",
        "_parts",
        "_patience",
        "_quiet_bytes",
        "_status",
        "_told",
        "_transport",
        "_upstream",
        "_used",
        "call",
        "on_body",
        "on_header",
        "on_message_begin",
        "on_message_complete",
        "ticks",
    )

    def __init__(self, owner: Owner, upstream: str) -> None:
        self._owner = owner
        self._patience = owner.patience
        self._upstream = upstream
        self._transport: asyncio.Transport | None = None
        self._due: list[None] = []
        self._parts: list[bytes] = []
        self._fields: Headers = {}
        self._headers: Headers = {}
        self.on_message_begin = self._due.pop
        self.on_header = self._fields.__setitem__
        self.on_body = self._parts.append
        self.on_message_complete = self._fields.clear
        self._parser: Any = httptools.HttpResponseParser(self)
        self._status = self._quiet_bytes = self.ticks = 0
        self._told = self._keep = self._used = False
        self.call: ResponseSink | None = None

    def start(self, call: ResponseSink) -> bool:
        """Send a call's request. False: it cannot be sent here, the connection is closing."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self._status = self._quiet_bytes = 0
        self._told = False
        self._due.append(None)
        self.call = call
        call.connection = self
        self.ticks = self._patience.first_byte
        self._owner.write(transport, call.request)
        return True

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close now, without sending what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """The call was cancelled."""
        self.call = None
        self.abort()

    def expire(self) -> None:
        """The pool's sweep found ``ticks`` used up."""
        if self.call is not None:
            where = "in the middle of" if self._told else "before"
            self._break(Code.ENGINE_TIMEOUT, f"was silent for too long {where} its answer")
        self.abort()

    def on_headers_complete(self) -> None:
        """llhttp read a head. What it says of the connection is known only while it is parsed."""
        parser = self._parser
        status = parser.get_status_code()
        if status == 200:
            self._headers = {}
        elif status >= 200:
            self._headers = self._fields.copy()  # without trailers, which come later
        else:  # the answer proper is still due
            self._due.append(None)
            return
        self._status = status
        self._keep = parser.should_keep_alive()
        self._fields[b""] = b""  # not empty, whatever headers there are

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """One read, parsed and handed over. Hot: one frame for what comes with every event."""
        call = self.call
        if call is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except _FAULTS as error:
            self._keep = False
            if self._fields or not self._status:
                self._spoilt(call, error)
                return
        body = b""
        parts = self._parts
        if parts:
            body = parts.pop()
            if parts:
                body = self._joined(body)
        if not self._fields and self._status:
            self._finish(call, body)
        elif body:
            if not self._told:
                self._tell_head(call)
            self._quiet_bytes = 0
            self.ticks = self._patience.between_bytes
            call.body(body)
        else:
            self._quiet(call, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        call = self.call
        if call is not None:
            self._lost_with(call, exc)
        self._owner.lost(self)

    # Handing over.

    def _joined(self, last: bytes) -> bytes:
        """The body pieces of one read, the last of which was taken already."""
        parts = self._parts
        parts.append(last)
        body = b"".join(parts)
        parts.clear()
        return body

    def _tell_head(self, call: ResponseSink) -> None:
        self._told = True
        call.request = b""
        call.head(self._status, self._headers)

    def _quiet(self, call: ResponseSink, size: int) -> None:
        """A read without any body, in the middle of an answer."""
        call.request = b""
        self._quiet_bytes += size
        if self._quiet_bytes > MAX_QUIET_BYTES:
            self._break(Code.ENGINE_FAILED, "sent a head that does not end")
            self.abort()

    def _finish(self, call: ResponseSink, body: bytes) -> None:
        """The answer is complete with this. The connection goes on if both sides are through with it: before
        the call is told, since that may begin the next one."""
        told, status, headers = self._told, self._status, self._headers
        self.call = call.connection = None
        transport = self._transport
        if self._keep and transport is not None and not transport.get_write_buffer_size():
            self._used = True
            self.ticks = self._patience.idle
            self._owner.idle(self)
        else:
            self.abort()
        try:
            if not told:
                call.whole(status, headers, body)
                return
            if body:
                call.body(body)
            if not call.over:
                call.end()
        except Exception:  # noqa: BLE001 - nobody else will tell the call any more
            _log.exception("an answer of %s could not be taken", self._upstream)
            if not call.over:
                call.failed(
                    HeadraceError(Code.INTERNAL, "The server failed at the engine's answer.")
                )

    def _spoilt(self, call: ResponseSink, fault: Exception) -> None:
        """Not HTTP/1.1 from some byte on. What came before it is told."""
        call.request = b""
        parts = self._parts
        if parts:
            if not self._told:
                self._tell_head(call)
            call.body(self._joined(parts.pop()))
        if self.call is call:  # and was not cancelled by what it was told
            what = f"did not speak HTTP/1.1: {fault.__context__ or fault}"
            self._break(Code.ENGINE_FAILED, what)
        self.abort()

    def _lost_with(self, call: ResponseSink, exc: Exception | None) -> None:
        if exc is None and self._status and self._fields and self._ends_with_connection():
            self._keep = False
            self._finish(call, b"")
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
        named = lower(self._fields)
        framed = b"content-length" in named or b"transfer-encoding" in named
        return not framed and self._status not in (204, 304)

    def _break(self, code: Code, what: str) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.connection = None
            call.failed(HeadraceError(code, f"The engine at {self._upstream} {what}."))
