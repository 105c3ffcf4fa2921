"""Is it up, can it serve, what version, what figures: what operators and their probes ask.

Probes need no key. The figures do, where there are keys: on the operations port they need none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.call import Call
from headrace.protocols.errors import Header
from headrace.protocols.port import Service
from headrace.protocols.router import Route

Metrics = Callable[[str], tuple[str, bytes]]
"""From the ``Accept`` header to a content type and the figures in it."""

_NO_STORE: Header = (b"cache-control", b"no-store")


class Health(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """``time``: float Unix seconds. ``reason``: why it cannot serve."""

    status: Literal["ok", "unavailable"]
    time: float
    reason: str | None = None


class Version(msgspec.Struct, frozen=True, gc=False):
    name: str
    version: str


class Operations:
    """Probes, version, metrics."""

    def __init__(self, service: Service, version: str, metrics: Metrics | None) -> None:
        self._service = service
        self._version = Version("headrace", version)
        self._metrics = metrics

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET", "/livez", self.alive, open=True),
            Route("GET", "/ping", self.alive, open=True),
            Route("GET", "/readyz", self.health, open=True),
            Route("GET", "/health", self.health, open=True),
            Route("GET", "/version", self.version, open=True),
            Route("GET", "/metrics", self.metrics, scope="metrics"),
        )

    def alive(self, call: Call, _: str) -> None:
        call.json(Health("ok", time.time()), headers=[_NO_STORE])

    def health(self, call: Call, _: str) -> None:
        ready, reason = self._service.readiness()
        if ready:
            call.json(Health("ok", time.time()), headers=[_NO_STORE])
            return
        body = Health("unavailable", time.time(), reason)
        call.json(body, 503, [_NO_STORE, (b"retry-after", b"1")])

    def version(self, call: Call, _: str) -> None:
        call.json(self._version)

    def metrics(self, call: Call, _: str) -> None:
        if self._metrics is None:
            raise HeadraceError(Code.NOT_FOUND, "This server has no metrics.")
        kind, body = self._metrics(call.header(b"accept") or "")
        call.respond(200, [(b"content-type", kind.encode()), _NO_STORE], body)
