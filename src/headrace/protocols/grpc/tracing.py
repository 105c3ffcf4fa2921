"""The span of a call, whatever its wire: what tells it how the call ended.

https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from headrace.protocols.grpc.call import Reply
from headrace.protocols.grpc.status import NAMES, Status
from headrace.protocols.tracing import LEFT, Attributes, Span

_CANCELLED = 1
_TOO_LATE = 4
_FAULTS = frozenset((2, _TOO_LATE, 12, 13, 14, 15))
"""Statuses that are a server's errors: unknown, too late, unimplemented, internal, unavailable, data loss."""


class System(NamedTuple):
    """``name``: ``rpc.system.name``; ``codes``: what it calls a status, by its number; empty: nothing."""

    name: str
    codes: Sequence[str]


GRPC = System("grpc", NAMES)


class TracedReply:
    """A reply that tells ``span`` how the call ended. Implements ``Reply``."""

    __slots__ = ("_on_gone", "_reply", "_span", "_system", "send", "start")

    def __init__(self, reply: Reply, span: Span, system: System) -> None:
        self._reply = reply
        self._span = span
        self._system = system
        self._on_gone: Callable[[], None] | None = None
        self.start = reply.start
        self.send = reply.send  # of every message: without a frame of its own
        reply.watch(self._gone, None)

    @property
    def late(self) -> bool:
        return self._reply.late

    def watch(self, on_gone: Callable[[], None], on_drain: Callable[[], None] | None) -> None:
        self._on_gone = on_gone
        self._reply.watch(self._gone, on_drain)

    def end(self, status: Status) -> None:
        self._over(status.code, status.message)
        self._reply.end(status)

    def _gone(self) -> None:
        """Others ended it, or :meth:`end` did, and the span knows already."""
        on_gone, self._on_gone = self._on_gone, None
        if self._reply.late:
            self._over(_TOO_LATE, "the deadline passed")
        else:
            self._over(_CANCELLED, "", LEFT)
        if on_gone is not None:
            on_gone()

    def _over(self, code: int, message: str, error: str = "") -> None:
        name = self._system.codes[code]
        fault = code in _FAULTS
        attributes = {"rpc.response.status_code": name} if name else {}
        if error or fault:
            attributes["error.type"] = error or name
        self._span.end(attributes, message if fault else None)


def rpc_attributes(system: System, path: str) -> Attributes:
    """What is known of a call from its beginning. ``path``: ``/package.Service/Method``."""
    return {"rpc.system.name": system.name, "rpc.method": path[1:]}
