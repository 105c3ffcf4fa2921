"""``grpc.health.v1.Health``: whether a model can serve, for whoever asks or watches.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from grpc_health.v1 import health_pb2

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.rpcs import Method, methods_of

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]
_STATES = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """``names``: the services that there are; the empty name is the server itself. Watchers are bounded by the
    calls that the wires allow."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(("", *names))
        self._state = _STATES.NOT_SERVING
        self._leaving = False
        self._watchers: set[RpcCall] = set()

    def methods(self) -> Sequence[Method]:
        return methods_of(SERVICE, {"Check": self.check, "Watch": self.watch}, {}, keyless=True)

    def check(self, call: RpcCall, asked: Any) -> None:
        if asked.service not in self._names:
            raise HeadraceError(Code.NOT_FOUND, f"There is no service {asked.service[:100]}.")
        call.answer(health_pb2.HealthCheckResponse(status=self._state))

    def watch(self, call: RpcCall, asked: Any) -> None:
        call.start()
        if asked.service not in self._names:
            _tell(call, _STATES.SERVICE_UNKNOWN)
            return
        self._watchers.add(call)
        call.reply.watch(partial(self._watchers.discard, call), None)
        _tell(call, self._state)

    def look(self, ready: bool) -> None:
        """Whether some model can serve."""
        state = _STATES.SERVING if ready and not self._leaving else _STATES.NOT_SERVING
        if state != self._state:
            self._state = state
            for call in tuple(self._watchers):
                _tell(call, state)

    def leave(self) -> None:
        """The server is about to stop: from now on it does not serve."""
        self._leaving = True
        self.look(False)

    def close(self) -> None:
        for call in tuple(self._watchers):
            call.fail(HeadraceError(Code.SHUTTING_DOWN, "The server stops."))


def _tell(call: RpcCall, state: Any) -> None:
    message = health_pb2.HealthCheckResponse(status=state)
    call.reply.send((message.SerializeToString(),))
