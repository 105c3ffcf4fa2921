"""All that there is over gRPC, behind all its wires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from google.protobuf.descriptor import ServiceDescriptor

from headrace.protocols.exchange import Exchange, Head
from headrace.protocols.grpc import health, reflection
from headrace.protocols.grpc.framing import status_fields
from headrace.protocols.grpc.inference import SERVICE, Inference
from headrace.protocols.grpc.rpcs import Method, Rpcs
from headrace.protocols.grpc.status import Status
from headrace.protocols.grpc.stream import EventStreams
from headrace.protocols.grpc.wires import GRPC, Wires
from headrace.protocols.port import Service
from headrace.protocols.tracing import Tracer

Handler = Callable[[Exchange], None]
_UNIMPLEMENTED = 12


class More(Protocol):
    """A service that is optional."""

    service: ClassVar[ServiceDescriptor]

    def methods(self) -> Sequence[Method]: ...


class Services:
    """``wires``: with the routes for the HTTP API. ``message_bytes``: see :class:`Wires`. ``streams``: those
    under way. ``more``: services beside ours."""

    def __init__(
        self,
        service: Service,
        message_bytes: int,
        tracer: Tracer | None = None,
        more: Sequence[More] = (),
    ) -> None:
        self.streams = EventStreams()
        others = [each.service for each in more]
        self.health = health.Health([each.full_name for each in (SERVICE, *others)])
        methods = [
            *Inference(service, self.streams).methods(),
            *(method for each in more for method in each.methods()),
            *self.health.methods(),
            *reflection.Reflection([SERVICE, health.SERVICE, *others]).methods(),
        ]
        self._paths = {method.path for method in methods}
        self.rpcs = Rpcs(service, methods, tracer)
        self.wires = Wires(self.rpcs, service, message_bytes)

    def alone(self, handler: Handler) -> Handler:
        """The handler of a port where there is nothing else. ``handler``: of the HTTP API."""

        def handle(exchange: Exchange) -> None:
            path = exchange.head.path
            if path in self._paths:
                handler(exchange)
                return
            missing = Status(_UNIMPLEMENTED, f"There is no method {path[:200]}.")
            exchange.respond(200, [(b"content-type", GRPC), *status_fields(missing)], b"")

        return handle

    def opens(self, head: Head) -> bool:
        """As :meth:`Wires.opens` has it, on such a port. Who calls what is not there is told at once, too: clients that
        try a newer version of a service first wait for that before they end what they say."""
        return head.path not in self._paths or self.wires.opens(head)

    def close(self) -> None:
        """The server stops: end what has not ended, and say where to read on."""
        self.streams.close()
        self.health.close()
