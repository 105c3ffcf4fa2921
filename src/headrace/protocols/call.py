"""A call: one HTTP request being answered, with its id, its headers and the headers of its answer.

Every answer of the API goes out through here, so that none lacks ``x-request-id`` or its CORS headers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count
from os import urandom
from time import monotonic, perf_counter, time
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.trace import Trace
from headrace.protocols.allowances import Named
from headrace.protocols.errors import Header, error_headers
from headrace.protocols.exchange import Exchange, Part
from headrace.protocols.port import Reservation
from headrace.protocols.terms import Terms
from headrace.protocols.tracing import Span

_logger = logging.getLogger("headrace.protocols")
JSON = (b"content-type", b"application/json")
_TOOK = b"openai-processing-ms"
"""How long the call had been going on when its answer began, in whole milliseconds."""
_NAMED = "x-generation-id: %s\r\nopenai-processing-ms: %d\r\nx-request-id: %s\r\n%s"
"""What the head of every answer from a log has, as lines: no value that goes in can have a line break in it."""
_ANSWER = "content-type: application/json\r\n" + _NAMED
_STREAM = "content-type: %s\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n" + _NAMED
_encode = msgspec.json.Encoder().encode
MAX_QUERY_FIELDS = 32
"""Fields of a query string; more is refused."""


NewId = Callable[[], str]


def request_ids() -> NewId:
    """Gives ids that nobody else gives: they count on from a random number of 95 bits. Asking the kernel
    for each would cost more than the rest of a call."""
    start = int.from_bytes(urandom(12), "big") >> 1
    return map("req_%024x".__mod__, count(start)).__next__


class Call(msgspec.Struct, eq=False):
    """``terms``: what its head says. ``request_id``: visible ASCII. ``started``: seconds of
    ``time.perf_counter``. A struct, since that is made without a call in Python."""

    exchange: Exchange
    terms: Terms
    request_id: str
    started: float
    tenant: str = "default"
    key_id: str = ""
    streams: bool = False
    """Whether the head of a streamed answer is out."""
    reservation: Reservation | None = None
    """Of what this call began or asked, where its caller has limits."""
    trace: Trace | None = None
    """Whose parent is the span of this call, or who decided that there is none; None: nobody has."""
    span: Span | None = None
    """Where it is recorded."""

    __repr__ = object.__repr__  # a request has secrets

    def header(self, name: bytes) -> str | None:
        """A header's value, latin-1; None if it is not there."""
        value = self.terms.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self) -> dict[str, str]:
        """The query's fields, the last of each name. Raises ``INVALID_REQUEST`` if there are too many."""
        query = self.exchange.head.query
        if not query:
            return {}
        try:
            return dict(
                parse_qsl(
                    query,
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=MAX_QUERY_FIELDS,
                )
            )
        except ValueError:
            raise HeadraceError(
                Code.INVALID_REQUEST,
                f"The query string must be UTF-8 with at most {MAX_QUERY_FIELDS} fields.",
            ) from None

    def respond(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.exchange.respond(status, self._with_common(headers), body)

    def respond_parts(self, status: int, headers: Sequence[Header], parts: Sequence[Part]) -> None:
        """The same, of a body in parts: see :meth:`Exchange.respond_parts`."""
        self.exchange.respond_parts(status, self._with_common(headers), parts)

    def _with_common(self, headers: Sequence[Header]) -> list[Header]:
        """What every answer has beside its own headers."""
        took = b"%d" % ((perf_counter() - self.started) * 1000)
        id = self.request_id.encode()
        common = self.terms.common
        if (id_header := self.terms.manner.id_header) is not None:
            common = ((id_header, id), *common)
        if self.reservation is not None:
            common = (*common, *_fields(self._left()))
        return [*headers, (_TOOK, took), (b"x-request-id", id), *common]

    def answer(self, generation_id: str, body: bytes) -> None:
        """Answer from a generation's log with JSON, in one piece."""
        took_ms = (perf_counter() - self.started) * 1000
        common = self.terms.lines
        if self.reservation is not None:
            common += _lines(self._left())
        lines = _ANSWER % (generation_id, took_ms, self.request_id, common)
        self.exchange.respond(200, lines.encode("latin-1"), body)

    def json(self, body: Any, status: int = 200, headers: Sequence[Header] = ()) -> None:
        """Answer with a value as JSON."""
        self.respond(status, [JSON, *headers], _encode(body))

    def start(self, content_type: str, generation_id: str) -> None:
        """The head of an answer that is streamed from a generation's log."""
        self.streams = True
        took_ms = (perf_counter() - self.started) * 1000
        common = self.terms.lines
        if (id_header := self.terms.manner.id_header) is not None:
            common = f"{id_header.decode()}: {self.request_id}\r\n{common}"
        if self.reservation is not None:
            common += _lines(self._left())
        lines = _STREAM % (content_type, generation_id, took_ms, self.request_id, common)
        self.exchange.start(200, lines.encode("latin-1"))

    def fail(self, error: HeadraceError, headers: Sequence[Header] = ()) -> None:
        """Answer with an error."""
        manner = self.terms.manner
        status, body = manner.failure(error, self.request_id)
        left = manner.allowance(error.allowance) if error.allowance is not None else ()
        self.respond(status, [JSON, *error_headers(error), *_fields(left), *headers], body)

    def _left(self) -> Sequence[Named]:
        assert self.reservation is not None
        return self.terms.manner.allowance(self.reservation.allowance(monotonic(), time()))

    def crash(self) -> None:
        """An exception that is our fault is being handled: log it once, and answer with 500 or, if an
        answer is under way, break it off."""
        named = {"request_id": self.request_id}
        _logger.exception("request %s failed in the server", self.request_id, extra=named)
        if self.streams:
            self.exchange.abort()
        else:
            said = f"The server failed at this request; its log says why under {self.request_id}."
            self.fail(HeadraceError(Code.INTERNAL, said))


def _fields(named: Sequence[Named]) -> list[Header]:
    return [(name.encode(), value.encode()) for name, value in named]


def _lines(named: Sequence[Named]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in named])
