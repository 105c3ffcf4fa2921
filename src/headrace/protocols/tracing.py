"""The span of a request, whatever its wire: what tells it how the answer ended. Here for HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from headrace.domain.errors import HeadraceError
from headrace.domain.trace import Trace
from headrace.protocols.exchange import Exchange, Head, Headers, Part
from headrace.protocols.port import Generation

CLIENT_LEFT = 499
LEFT = "client_disconnected"
"""``error.type`` of a request whose client did not wait for the answer."""

Attributes = Mapping[str, str | int]


class Span(Protocol):
    """A request that is recorded."""

    def about(self, generation: Generation) -> None:
        """It is about a generation that another request began: its trace leads to that one's."""

    def did(self, name: str, began: int, attributes: Attributes, fault: str | None = None) -> None:
        """A part of it is over, which began at so many Unix nanoseconds. ``fault`` as below."""

    def end(self, attributes: Attributes, fault: str | None = None) -> None:
        """It was answered, as ``attributes`` say. ``fault``: what went wrong by ours or an engine's, in words;
        None: nothing. Idempotent."""


T = TypeVar("T")


async def worked(
    span: Span | None, name: str, work: Awaitable[T], learnt: Callable[[T], Attributes]
) -> T:
    """What ``work`` gives: a request's work that leaves no log, as a span of its own within the request's. ``learnt``:
    what its result says of it."""
    if span is None:
        return await work
    began = time.time_ns()
    try:
        result = await work
    except HeadraceError as error:
        fault = error.message if error.meaning.http >= 500 else None
        span.did(name, began, {"error.type": error.code.value}, fault)
        raise
    except asyncio.CancelledError:
        span.did(name, began, {"error.type": LEFT})
        raise
    span.did(name, began, learnt(result))
    return result


class Tracer(Protocol):
    """Decides which requests are recorded."""

    def follow(self, said: Trace | None) -> Trace | None:
        """The trace that a request belongs to, ``sampled`` or not: that of its client, or a new one. None: a
        new one that nobody records, as most are."""

    def request(
        self, trace: Trace, said: Trace | None, request_id: str, name: str, attributes: Attributes
    ) -> Span:
        """A request in a sampled trace that :meth:`follow` gave for ``said`` has come. There are few different
        ``name``s."""


class TracedExchange:
    """An exchange that tells ``span`` how it ended. Implements ``Exchange``."""

    on_gone: Callable[[], None] | None = None

    def __init__(self, exchange: Exchange, span: Span) -> None:
        self._exchange = exchange
        self._span = span
        self._status = 0
        self.body = exchange.body
        self.send = exchange.send  # of every event: without a frame of its own
        exchange.on_gone = self._gone

    @property
    def head(self) -> Head:
        return self._exchange.head

    @property
    def certificate(self) -> tuple[str, ...] | None:
        return self._exchange.certificate

    @property
    def peer(self) -> str:
        return self._exchange.peer

    @property
    def scheme(self) -> str:
        return self._exchange.scheme

    @property
    def gone(self) -> bool:
        return self._exchange.gone

    @property
    def on_data(self) -> Callable[[bytes], None] | None:
        return self._exchange.on_data

    @on_data.setter
    def on_data(self, callback: Callable[[bytes], None] | None) -> None:
        self._exchange.on_data = callback

    @property
    def arrives(self) -> bool:
        return self._exchange.arrives

    def take(self, size: int) -> None:
        self._exchange.take(size)

    @property
    def has_trailers(self) -> bool:
        return self._exchange.has_trailers

    @property
    def on_drain(self) -> Callable[[], None] | None:
        return self._exchange.on_drain

    @on_drain.setter
    def on_drain(self, callback: Callable[[], None] | None) -> None:
        self._exchange.on_drain = callback

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._exchange.respond(status, headers, body)
        self._over(status)

    def respond_parts(self, status: int, headers: Headers, parts: Sequence[Part]) -> None:
        self._exchange.respond_parts(status, headers, parts)
        self._over(status)

    def start(self, status: int, headers: Headers) -> None:
        self._status = status
        self._exchange.start(status, headers)

    def end(self, trailers: Headers = ()) -> None:
        self._exchange.end(trailers)
        self._over(self._status)

    def abort(self) -> None:
        self._exchange.abort()
        self._over(self._status or 500, "aborted")

    def _over(self, status: int, error: str = "") -> None:
        self.on_gone = None  # it may hold this exchange: no cycle is left behind
        attributes: dict[str, str | int] = {"http.response.status_code": status}
        if error or status >= 500:
            attributes["error.type"] = error or str(status)
        self._span.end(attributes, f"HTTP {status}" if status >= 500 else None)

    def _gone(self) -> None:
        on_gone = self.on_gone
        self._over(self._status or CLIENT_LEFT, LEFT)
        if on_gone is not None:
            on_gone()


def http_attributes(exchange: Exchange, route: str) -> Attributes:
    """What a request's head says for its span. ``route``: its pattern. The query is not there: it may carry a
    token."""
    head = exchange.head
    return {
        "http.request.method": head.method,
        "http.route": route,
        "url.path": head.path,
        "url.scheme": exchange.scheme,
    }
