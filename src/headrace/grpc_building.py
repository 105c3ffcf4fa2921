"""From settings to gRPC: the one module that knows whether it is asked for and installed.

What it imports takes a tenth of a second and a package that many servers never need: so it is imported here,
when a server asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.front.exchange import Head
from headrace.front.listen import Front, FrontOptions, listen
from headrace.front.outbox import Outbox
from headrace.protocols.exchange import Exchange
from headrace.protocols.port import Service
from headrace.protocols.router import Route
from headrace.protocols.tracing import Tracer
from headrace.settings import Settings

if TYPE_CHECKING:  # it imports numpy
    from headrace.kserve_building import V2

_CLOSE_S = 1.0
"""For what is being sent when the port closes."""


class Grpc:
    """``headrace.v1``, and KServe V2 where there are models for it, on all wires. ``routes``: for the HTTP API.
    The gRPC port has the same ones, and nothing else."""

    def __init__(
        self, settings: Settings, service: Service, tracer: Tracer | None, v2: V2 | None = None
    ) -> None:
        """``v2``: where there are models that take tensors. Raises ``INVALID_REQUEST`` if the packages are missing."""
        try:
            from headrace.protocols.grpc.services import Services
            from headrace.protocols.grpc.wires import refusal

            more = () if v2 is None else (v2.over_grpc(),)
        except ImportError as error:
            raise _missing(error) from error
        self._settings = settings
        self._service = service
        self._services = Services(service, settings.server.max_body_bytes, tracer, more)
        self._refusal = refusal
        self.routes: Sequence[Route] = self._services.wires.routes()
        self._front: Front | None = None

    @property
    def address(self) -> str | None:
        """``host:port`` or the path, as bound; None without a port."""
        return None if self._front is None else self._front.address

    def opens(self, head: Head) -> bool:
        """Whether the messages of such a request are taken as they come."""
        return self._services.wires.opens(head)

    async def start(
        self, handler: Callable[[Exchange], None], options: FrontOptions, outbox: Outbox
    ) -> None:
        """Open the port, if there is to be one. ``handler`` and ``options``: of the HTTP port. Raises
        :class:`CannotListen`."""
        server = self._settings.server
        if server.grpc_port is None and server.grpc_uds is None:
            return
        own = msgspec.structs.replace(
            options,
            host=server.grpc_host or server.host,
            port=server.grpc_port or 0,
            uds=server.grpc_uds,
            refuse=self._refusal,
            opens=self._services.opens,
            limits=msgspec.structs.replace(options.limits, streams=server.max_connections),
        )
        self._front = await listen(self._services.alone(handler), own, outbox)

    def look(self) -> None:
        """Tell the health service whether a model can serve."""
        self._services.health.look(self._service.readiness()[0])

    def leave(self) -> None:
        """Say that the server is about to stop."""
        self._services.health.leave()

    async def close(self) -> None:
        """End the streams that are left, with where to read on, and close the port."""
        self._services.close()
        front, self._front = self._front, None
        if front is not None:
            await front.close(_CLOSE_S)


def wanted(settings: Settings) -> bool:
    """Whether anything here is asked for."""
    server = settings.server
    return server.grpc_web or server.grpc_port is not None or server.grpc_uds is not None


def _missing(error: ImportError) -> HeadraceError:
    said = (
        f"gRPC needs packages that are not installed ({error.name}): pip install 'headrace[grpc]'."
    )
    return HeadraceError(Code.INVALID_REQUEST, said, param="server.grpc_port")
