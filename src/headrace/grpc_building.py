"""From settings to gRPC: the one module that knows whether it is asked for and installed.

What it imports takes a tenth of a second and a package that many servers never need: so it is imported here,
when a server asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.domain.errors import Code, HeadraceError
from headrace.front.sockets import CannotListen
from headrace.protocols.port import Service
from headrace.protocols.router import Route
from headrace.settings import Settings
from headrace.settings.environment import without_fork_handlers

if TYPE_CHECKING:
    from headrace.protocols.grpc.server import GrpcPort


class Grpc:
    """``headrace.v1`` on all its wires. ``routes``: gRPC-Web and Connect, for the HTTP port."""

    def __init__(self, settings: Settings, service: Service) -> None:
        """Raises ``INVALID_REQUEST`` if the packages are missing."""
        try:
            from headrace.protocols.grpc.inference import Inference
            from headrace.protocols.grpc.rpcs import Rpcs
            from headrace.protocols.grpc.stream import EventStreams
            from headrace.protocols.grpc.web import Web
        except ImportError as error:
            raise _missing(error) from error
        self._settings = settings
        self._service = service
        self.streams = EventStreams()
        self._rpcs = Rpcs(service, Inference(service, self.streams).methods())
        self.routes: Sequence[Route] = Web(self._rpcs, settings.server.max_body_bytes).routes()
        self._port: GrpcPort | None = None

    @property
    def address(self) -> str | None:
        """``host:port`` or the path, as bound; None without a port."""
        server = self._settings.server
        if self._port is None:
            return None
        return server.grpc_uds or f"{_host(self._settings)}:{self._port.port}"

    async def start(self) -> None:
        """Open the port, if there is to be one. Raises :class:`CannotListen`."""
        server = self._settings.server
        if server.grpc_port is None and server.grpc_uds is None:
            return
        without_fork_handlers()
        try:
            from headrace.protocols.grpc.server import GrpcOptions, GrpcPort
        except ImportError as error:
            raise _missing(error) from error
        address = f"{_host(self._settings)}:{server.grpc_port}"
        options = GrpcOptions(
            address=f"unix:{server.grpc_uds}" if server.grpc_uds else address,
            certificate=server.ssl_certfile,
            key=server.ssl_keyfile,
            message_bytes=server.max_body_bytes,
            calls=server.max_connections,
        )
        port = GrpcPort(self._rpcs, options)
        try:
            await port.start()
        except OSError as error:
            raise CannotListen(error.errno, str(error)) from error
        self._port = port

    async def look(self) -> None:
        """Tell the health service whether a model can serve."""
        if self._port is not None:
            await self._port.look(self._service.readiness()[0])

    async def leave(self) -> None:
        """Say that the server is about to stop."""
        if self._port is not None:
            await self._port.leave()

    async def close(self) -> None:
        """End the streams that are left, with where to read on, and close the port."""
        self.streams.close()
        if self._port is not None:
            await self._port.close()


def wanted(settings: Settings) -> bool:
    """Whether anything here is asked for."""
    server = settings.server
    return server.grpc_web or server.grpc_port is not None or server.grpc_uds is not None


def _host(settings: Settings) -> str:
    host = settings.server.grpc_host or settings.server.host or "::"
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _missing(error: ImportError) -> HeadraceError:
    said = (
        f"gRPC needs packages that are not installed ({error.name}): pip install 'headrace[grpc]'."
    )
    return HeadraceError(Code.INVALID_REQUEST, said, param="server.grpc_port")
