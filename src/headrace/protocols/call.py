"""A call: one HTTP request being answered, with its id, its headers and the headers of its answer.

Every answer of the API goes out through here, so that none lacks ``x-request-id`` or its CORS headers.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from itertools import count
from os import urandom
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.errors import Header, error_body, retry_headers
from headrace.protocols.exchange import Exchange

_logger = logging.getLogger("headrace.protocols")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_JSON = (b"content-type", b"application/json")
_TOOK = b"openai-processing-ms"
"""How long the call had been going on when its answer began, in whole milliseconds."""
_encode = msgspec.json.Encoder().encode
MAX_QUERY_FIELDS = 32
"""Fields of a query string; more is refused."""


NewId = Callable[[], bytes]


def request_ids() -> NewId:
    """Gives ids that nobody else gives: they count on from a random number of 95 bits. Asking the kernel
    for each would cost more than the rest of a call."""
    start = int.from_bytes(urandom(12), "big") >> 1
    return map(b"req_%024x".__mod__, count(start)).__next__


class Call:
    """``fields``: the request's headers, the first of each name. ``started``: seconds of the monotonic clock.
    ``new_id``: for a request without an id of its own."""

    __slots__ = ("answered", "common", "exchange", "fields", "request_id", "started", "tenant")

    def __init__(self, exchange: Exchange, new_id: NewId) -> None:
        self.exchange = exchange
        self.started = time.perf_counter()
        self.fields: dict[bytes, bytes] = dict(reversed(exchange.headers))
        asked = self.fields.get(b"x-request-id")
        if asked is None or _REQUEST_ID.fullmatch(asked) is None:
            asked = new_id()
        self.request_id = asked
        self.common: list[Header] = [(b"x-request-id", asked)]
        self.tenant = "default"
        self.answered = False

    def header(self, name: bytes) -> str | None:
        """A header's value, latin-1; None if it is not there."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self) -> dict[str, str]:
        """The query's fields, the last of each name. Raises ``INVALID_REQUEST`` if there are too many."""
        if not self.exchange.query:
            return {}
        try:
            return dict(
                parse_qsl(
                    self.exchange.query,
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
        self.answered = True
        took = b"%d" % ((time.perf_counter() - self.started) * 1000)
        self.exchange.respond(status, [*headers, (_TOOK, took), *self.common], body)

    def json(self, body: Any, status: int = 200, headers: Sequence[Header] = ()) -> None:
        """Answer with a value as JSON."""
        self.respond(status, [_JSON, *headers], _encode(body))

    def json_bytes(self, body: bytes, headers: Sequence[Header] = ()) -> None:
        """Answer with JSON that is encoded already."""
        self.respond(200, (_JSON, *headers), body)

    def start(self, headers: Sequence[Header]) -> None:
        """The head of a streamed answer."""
        self.answered = True
        took = b"%d" % ((time.perf_counter() - self.started) * 1000)
        self.exchange.start(200, [*headers, (_TOOK, took), *self.common])

    def fail(self, error: HeadraceError, headers: Sequence[Header] = ()) -> None:
        """Answer with an error."""
        self.respond(
            error.meaning.http, [_JSON, *retry_headers(error), *headers], error_body(error)
        )

    def crash(self) -> None:
        """An exception that is our fault is being handled: log it once, and answer with 500 or, if an
        answer is under way, break it off."""
        request_id = self.request_id.decode()
        _logger.exception("request %s failed in the server", request_id)
        if self.answered:
            self.exchange.abort()
        else:
            said = f"The server failed at this request; its log says why under {request_id}."
            self.fail(HeadraceError(Code.INTERNAL, said))
