"""One request on an HTTP/2 stream, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.front.answer import BODYLESS, lines
from headrace.front.base import BaseExchange
from headrace.front.exchange import HIGH_WATER_BYTES, Headers
from headrace.front.peer import certificate

if TYPE_CHECKING:
    from headrace.front.http2 import Http2Connection

LOW_WATER_BYTES = 16 * 1024


class Http2Exchange(BaseExchange):
    """Implements ``Exchange``. ``unsent`` is what flow control, or a client that takes nothing, holds
    back: at most ``HIGH_WATER_BYTES`` and one ``send``."""

    __slots__ = ("_connection", "_started", "ended", "moved", "stream", "unsent")

    def __init__(
        self,
        connection: Http2Connection,
        stream: int,
        target: tuple[str, str, str],
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        self._connection: Http2Connection | None = connection
        self.stream = stream
        self.method, self.path, self.query = target
        self.headers = headers
        self.body = body
        self.peer = connection.peer
        self.scheme = connection.shared.scheme
        self.gone = False
        self.on_gone = None
        self.on_drain = None
        self._blocked = False
        self._started = False
        self.ended = False
        self.unsent = bytearray()
        self.moved = connection.shared.now
        """When something was last sent, or nothing was waiting."""

    @property
    def certificate(self) -> bytes | None:
        """The client's certificate (DER), if TLS asked for one and it has one."""
        return certificate(self._connection.transport) if self._connection else None

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._started:
            raise RuntimeError("respond after start")
        fields = answer_fields(status, headers, connection.shared.heads.date)
        if status not in BODYLESS:
            fields.append((b"content-length", b"%d" % len(body)))
        self._started = True
        if self.method == "HEAD" or status in BODYLESS:
            body = b""
        connection.send_head(self, fields, last=not body)
        if body and self._connection is not None:
            self.moved = connection.shared.now
            self.unsent += body
            self.end()

    def start(self, status: int, headers: Headers) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._started:
            raise RuntimeError("start twice")
        fields = answer_fields(status, headers, connection.shared.heads.date)
        self._started = True
        connection.send_head(self, fields, last=False)

    def send(self, data: bytes) -> bool:
        connection = self._connection
        if connection is None:
            return True
        if not self._started:
            raise RuntimeError("send before start")
        if data and self.method != "HEAD":
            if not self.unsent:
                self.moved = connection.shared.now
            self.unsent += data
            connection.push(self)
        if len(self.unsent) > HIGH_WATER_BYTES:
            self._blocked = True
            return False
        return True

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if not self._started:
            raise RuntimeError("end before start")
        self.ended = True
        self.on_gone = self.on_drain = None
        self._connection = None
        connection.push(self)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self._detach()
            connection.reset(self)

    # For the connection.

    def fail(self) -> None:
        """The handler raised."""
        connection = self._connection
        if connection is None:
            return
        if self._started:
            self.abort()
        else:
            headers, body = connection.shared.refuse(500, "internal error")
            self.respond(500, headers, body)

    def _detach(self) -> None:
        self._connection = self.on_gone = self.on_drain = None


def answer_fields(status: int, headers: Headers, date: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer. Raises ValueError for line breaks and NUL in them."""
    if headers:
        lines(headers)
    return [(b":status", b"%d" % status), (b"server", b"headrace"), (b"date", date), *headers]
