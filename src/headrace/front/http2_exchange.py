"""One request on an HTTP/2 stream, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from headrace.front.answer import BODYLESS, lines, pairs
from headrace.front.base import BaseExchange
from headrace.front.exchange import HIGH_WATER_BYTES, Headers
from headrace.front.http2_frames import block, status_field

if TYPE_CHECKING:
    from headrace.front.http2 import Http2Connection

LOW_WATER_BYTES = 16 * 1024


class Http2Exchange(BaseExchange, eq=False):
    """Implements ``Exchange``. ``unsent`` is what flow control, or a client that takes nothing, holds
    back: at most ``HIGH_WATER_BYTES`` and one ``send``."""

    has_trailers: ClassVar[bool] = True
    open: bool = True
    stream: int = 0
    window: Any = None
    """The library's stream: ``outbound_flow_control_window`` is what it may send."""
    moved: float = 0.0
    """When something was last sent, or nothing was waiting."""
    started: bool = False
    ended: bool = False
    trailers: bytes = b""
    """The header block that follows the body, if one does."""
    untaken: int = 0
    """Bytes of an arriving body that the client has no credit for yet."""
    unsent: bytearray = msgspec.field(default_factory=bytearray)

    def receive(self, data: bytes) -> None:
        """A piece of the body, or its end; for the connection to call."""
        self.arrives = bool(data)
        self.untaken += len(data)
        if self.on_data is not None:
            self._tell(self.on_data, data)

    def take(self, size: int) -> None:
        connection: Http2Connection = self.connection
        self.untaken -= size
        connection.credit(self.stream, size)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        if not self.open:
            return
        connection: Http2Connection = self.connection
        if self.started:
            raise RuntimeError("respond after start")
        fields = answer_block(status, headers, connection.shared.heads.date)
        if status not in BODYLESS:
            fields += block([(b"content-length", b"%d" % len(body))])
        self.started = True
        if self.head.method == "HEAD" or status in BODYLESS:
            body = b""
        connection.send_fields(self, fields, last=not body)
        if not body:
            self.close()
        elif self.open:
            self.moved = connection.shared.now
            self.unsent += body
            self.end()

    def start(self, status: int, headers: Headers) -> None:
        if not self.open:
            return
        connection: Http2Connection = self.connection
        if self.started:
            raise RuntimeError("start twice")
        fields = answer_block(status, headers, connection.shared.heads.date)
        self.started = True
        connection.send_fields(self, fields, last=False)

    def send(self, data: bytes) -> bool:
        if not self.open:
            return True
        connection: Http2Connection = self.connection
        if not self.started:
            raise RuntimeError("send before start")
        if not data or self.head.method == "HEAD":
            return True
        unsent = self.unsent
        if not unsent:
            if connection.send_at_once(self, data):
                return True
            self.moved = connection.shared.now
        unsent += data
        connection.push(self)
        if len(unsent) > HIGH_WATER_BYTES:
            self.blocked = True
            return False
        return True

    def end(self, trailers: Headers = ()) -> None:
        if not self.open:
            return
        connection: Http2Connection = self.connection
        if not self.started:
            raise RuntimeError("end before start")
        self.ended = True
        if trailers:
            self.trailers = block(pairs(lines(trailers)))
        self.close()
        connection.push(self)

    def close(self) -> None:
        self.open = False
        self.on_gone = self.on_drain = self.on_data = None

    def abort(self) -> None:
        if self.open:
            self.close()
            self.connection.reset(self)


def answer_block(status: int, headers: Headers, date: bytes) -> bytes:
    """The head of an answer as a header block. Raises ValueError for line breaks and NUL in its fields."""
    whole = lines(headers)
    fields = pairs(whole) if isinstance(headers, bytes) else headers
    return status_field(status) + block(((b"server", b"headrace"), (b"date", date), *fields))
