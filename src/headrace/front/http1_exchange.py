"""One request on an HTTP/1.1 connection, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from headrace.front.answer import BODYLESS, lines
from headrace.front.base import BaseExchange
from headrace.front.exchange import Headers, Part

if TYPE_CHECKING:
    from headrace.front.http1 import Http1Connection

_CHUNKED = b"transfer-encoding: chunked\r\n"

# How the body of a streamed answer is framed.
_UNSTARTED = 0
_IN_CHUNKS = 1
_TO_THE_END = 2
_NO_BODY = 3
_OVER = 4


class Http1Exchange(BaseExchange, eq=False):
    """One request on an HTTP/1.1 connection and its answer. Implements ``Exchange``."""

    framing: int = _UNSTARTED
    has_trailers: ClassVar[bool] = False

    @property
    def open(self) -> bool:
        return self.framing != _OVER

    @property
    def started(self) -> bool:
        return self.framing != _UNSTARTED

    def receive(self, data: bytes) -> None:
        """A piece of a body that arrives, or its end; for the connection to call."""
        self.arrives = bool(data)
        if self.on_data is not None:
            self._tell(self.on_data, data)

    def take(self, size: int) -> None:
        connection: Http1Connection = self.connection
        if self.open:
            connection.take(size)

    def close(self) -> None:
        self.framing = _OVER
        self.on_gone = self.on_drain = self.on_data = None

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        # What most answers need is here, without a call.
        if self.framing:
            if self.open:
                raise RuntimeError("respond after start")
            return
        connection: Http1Connection = self.connection
        shared = connection.shared
        if self.head.plain and not shared.draining and status not in BODYLESS:
            if not isinstance(headers, bytes):
                headers = lines(headers)
            parts = (shared.heads[status], headers, len(body), body)
            data = b"%b%bcontent-length: %d\r\n\r\n%b" % parts
        else:
            data = self._answer(status, headers, body)
        connection.written += len(data)
        shared.outbox.write(connection.transport, data)
        self.framing = _OVER
        self.on_gone = self.on_drain = None
        connection.answered()

    def respond_parts(self, status: int, headers: Headers, parts: Sequence[Part]) -> None:
        if self.framing or self.head.method == "HEAD" or status in BODYLESS:
            self.respond(status, headers, b"".join(parts))
            return
        connection: Http1Connection = self.connection
        length = sum(map(len, parts))
        more = b"%bcontent-length: %d\r\n" % (connection.closing_line(self.head), length)
        connection.send(connection.shared.heads.head(status, headers, more) + parts[0])
        for part in parts[1:]:
            connection.send(part)
        self.framing = _OVER
        self.on_gone = self.on_drain = None
        connection.answered()

    def _answer(self, status: int, headers: Headers, body: bytes) -> bytes:
        """A whole answer of any kind."""
        connection: Http1Connection = self.connection
        heads = connection.shared.heads
        more = connection.closing_line(self.head)
        if status in BODYLESS:
            return heads.head(status, headers, more)
        data = heads.whole(status, headers, more, body)
        return data[: -len(body)] if self.head.method == "HEAD" and body else data

    def start(self, status: int, headers: Headers) -> None:
        if self.framing:
            if self.open:
                raise RuntimeError("start twice")
            return
        connection: Http1Connection = self.connection
        head = self.head
        framing = _IN_CHUNKS
        if head.method == "HEAD" or status in BODYLESS:
            framing = _NO_BODY
        elif head.http10:
            framing = _TO_THE_END
            connection.keep = False
        more = connection.closing_line(head)
        if framing == _IN_CHUNKS:
            more += _CHUNKED
        data = connection.shared.heads.head(status, headers, more)
        self.framing = framing
        connection.send(data)

    def send(self, data: bytes) -> bool:
        connection: Http1Connection = self.connection
        if self.framing == _IN_CHUNKS and data:  # an empty chunk would be the last one
            data = b"%x\r\n%b\r\n" % (len(data), data)
            connection.written += len(data)
            connection.shared.outbox.write(connection.transport, data)
        elif self.framing == _UNSTARTED:
            raise RuntimeError("send before start")
        elif self.framing == _TO_THE_END and data:
            connection.send(data)
        elif not self.open:
            return True
        if connection.paused:
            self.blocked = True
            return False
        return True

    def end(self, trailers: Headers = ()) -> None:
        if not self.open:
            return
        if self.framing == _IN_CHUNKS:
            self.connection.send(b"0\r\n\r\n")
        elif self.framing == _UNSTARTED:
            raise RuntimeError("end before start")
        self.close()
        self.connection.answered()

    def abort(self) -> None:
        if self.open:
            self.close()
            self.connection.abort()
