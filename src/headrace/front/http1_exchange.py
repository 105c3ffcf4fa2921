"""One request on an HTTP/1.1 connection, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.front.answer import BODYLESS
from headrace.front.base import BaseExchange
from headrace.front.exchange import Headers
from headrace.front.peer import certificate
from headrace.front.target import RequestLine

if TYPE_CHECKING:
    from headrace.front.http1 import Http1Connection

_LARGE_BYTES = 64 * 1024
"""Pieces above this are written without copying them next to their frame."""
_CHUNKED = b"transfer-encoding: chunked\r\n"

# How the body of a streamed answer is framed.
_UNSTARTED = 0
_IN_CHUNKS = 1
_TO_THE_END = 2
_NO_BODY = 3


class Http1Exchange(BaseExchange):
    """One request on an HTTP/1.1 connection and its answer. Implements ``Exchange``."""

    __slots__ = ("_connection", "_framing", "_http10")

    def __init__(
        self,
        connection: Http1Connection,
        line: RequestLine,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        self._connection: Http1Connection | None = connection
        self.method, self.path, self.query, self._http10 = line
        self.headers = headers
        self.body = body
        self.peer = connection.peer
        self.scheme = connection.shared.scheme
        self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self._framing = _UNSTARTED
        self._blocked = False

    @property
    def certificate(self) -> bytes | None:
        """The client's certificate (DER), if TLS asked for one and it has one."""
        return certificate(self._connection.transport) if self._connection else None

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._framing:
            raise RuntimeError("respond after start")
        shared = connection.shared
        heads = shared.heads
        more = b""
        if not connection.keep or self._http10 or shared.draining:
            more = connection.closing_line(self._http10)
        if status in BODYLESS:
            data = heads.head(status, headers, more)
        else:
            data = heads.whole(status, headers, more, body)
            if self.method == "HEAD" and body:
                data = data[: -len(body)]
        connection.send(data)
        self._detach()
        connection.answered()

    def start(self, status: int, headers: Headers) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._framing:
            raise RuntimeError("start twice")
        framing = _IN_CHUNKS
        if self.method == "HEAD" or status in BODYLESS:
            framing = _NO_BODY
        elif self._http10:
            framing = _TO_THE_END
            connection.keep = False
        more = connection.closing_line(self._http10)
        if framing == _IN_CHUNKS:
            more += _CHUNKED
        data = connection.shared.heads.head(status, headers, more)
        self._framing = framing
        connection.send(data)

    def send(self, data: bytes) -> bool:
        connection = self._connection
        if connection is None:
            return True
        framing = self._framing
        size = len(data)
        if framing == _IN_CHUNKS and 0 < size <= _LARGE_BYTES:  # as nearly always
            connection.send(b"%x\r\n%b\r\n" % (size, data))
        elif size and framing != _NO_BODY:
            if framing == _IN_CHUNKS:
                for piece in (b"%x\r\n" % size, data, b"\r\n"):
                    connection.send(piece)
            elif framing == _TO_THE_END:
                connection.send(data)
            else:
                raise RuntimeError("send before start")
        if connection.paused:
            self._blocked = True
            return False
        return True

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._framing == _IN_CHUNKS:
            connection.send(b"0\r\n\r\n")
        elif not self._framing:
            raise RuntimeError("end before start")
        self._detach()
        connection.answered()

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self._detach()
            connection.abort()

    def fail(self) -> None:
        """The handler raised; for the connection to call."""
        connection = self._connection
        if connection is None:
            return
        if self._framing:
            self.abort()
        else:
            headers, body = connection.shared.refuse(500, "internal error")
            self.respond(500, headers, body)

    def _detach(self) -> None:
        self._connection = self.on_gone = self.on_drain = None
