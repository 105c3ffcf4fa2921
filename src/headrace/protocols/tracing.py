"""The span of an HTTP request: what tells it how the answer ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.domain.trace import Trace
from headrace.protocols.exchange import Exchange, Head, Headers

CLIENT_LEFT = 499


class Span(Protocol):
    """A request that is recorded."""

    def end(self, status: int, error: str = "") -> None:
        """It was answered with ``status``. ``error``: what went wrong where that does not say it. Idempotent."""


class Tracer(Protocol):
    """Decides which requests are recorded."""

    def follow(self, said: Trace | None) -> Trace:
        """The trace that a request belongs to, ``sampled`` or not: that of its client, or a new one."""

    def request(
        self, trace: Trace, said: Trace | None, method: str, route: str, path: str, request_id: str
    ) -> Span:
        """A request in a sampled trace that :meth:`follow` gave for ``said`` has come. ``path`` has no query:
        that may carry a token."""


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
        self._span.end(status, error)

    def _gone(self) -> None:
        on_gone = self.on_gone
        self._over(self._status or CLIENT_LEFT, "client_disconnected")
        if on_gone is not None:
            on_gone()
