"""``listen``: opens a front. TCP, TLS over TCP, or a unix socket; HTTP/1.1 and HTTP/2 on each.

Nothing here is kept at module level: a thread with a loop of its own may run a front of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

import msgspec

from headrace.front.answer import Refuse, plain_refusal
from headrace.front.connections import Connections
from headrace.front.exchange import Handler, Opens
from headrace.front.http1 import Http1Connection
from headrace.front.limits import Limits
from headrace.front.outbox import Outbox
from headrace.front.peer import address_name
from headrace.front.sockets import AddressTaken, CannotListen, named, tcp_sockets, unix_socket
from headrace.front.tls import ServerTls

__all__ = ["AddressTaken", "CannotListen", "Front", "FrontOptions", "listen"]

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted."""
HANDSHAKE_S = 10.0
"""Time for a TLS handshake, and for the closing one."""
_ABORT_S = 5.0


class FrontOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to listen. ``port`` 0 takes a free one; ``uds`` (a path) instead of host and port.
    ``reuse_port``: several processes share one port. ``refuse`` renders refusals and must not raise.
    ``opens``: requests whose handler is called before their body has come; None: none. ``uploads``: the same over
    HTTP/1.1 as well, and however long their body is. ``maps``: requests whose body may be any buffer, which a long one
    then is over HTTP/1.1."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    reuse_port: bool = False
    tls: ServerTls | None = None
    limits: Limits = Limits()
    refuse: Refuse = plain_refusal
    opens: Opens | None = None
    uploads: Opens | None = None
    maps: Opens | None = None


class Front:
    """An open front: its address, figures for metrics, and the way to close it."""

    def __init__(
        self,
        servers: Sequence[asyncio.AbstractServer],
        connections: Connections,
        address: str,
        port: int,
        uds: str | None,
    ) -> None:
        self._servers = servers
        self._connections = connections
        self._uds = uds
        self.address = address
        """``host:port`` as bound, or the path."""
        self.port = port
        """0 for a unix socket."""

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections.open)

    @property
    def exchanges(self) -> int:
        """Exchanges under way. Looks at every connection."""
        return self._connections.under_way()

    @property
    def arriving_bytes(self) -> int:
        """Bytes held of request bodies that are not complete."""
        return self._connections.arriving_bytes

    async def close(self, grace_s: float = 30.0) -> bool:
        """Stop accepting, close idle connections, let exchanges end for up to ``grace_s`` seconds, then
        break what is left. Whether all ended by themselves."""
        for server in self._servers:
            server.close()
        if self._uds is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._uds)
        connections = self._connections
        connections.drain()
        ended = await connections.empty(grace_s)
        if not ended:
            connections.abort()
            await connections.empty(_ABORT_S)
        connections.stop()
        return ended


async def listen(handler: Handler, options: FrontOptions, outbox: Outbox | None = None) -> Front:
    """Open a front on the running loop; ``outbox``: one that others write to as well. Raises
    :class:`CannotListen`, which names the address; :class:`AddressTaken` is one."""
    loop = asyncio.get_running_loop()
    context = options.tls.context if options.tls else None
    if options.uds is not None:
        sockets = [unix_socket(options.uds)]
    else:
        sockets = tcp_sockets(
            options.host,
            options.port,
            reuse_port=options.reuse_port,
            stall_s=options.limits.stall_s,
        )
    bound = sockets[0].getsockname()
    connections = Connections(
        handler,
        options.refuse,
        options.limits,
        loop,
        http2=_speak_http2,
        tls=context is not None,
        outbox=outbox,
        opens=options.opens,
        uploads=options.uploads,
        maps=options.maps,
    )
    servers: list[asyncio.AbstractServer] = []
    try:
        for sock in sockets:
            server = await loop.create_server(
                lambda: Http1Connection(connections),
                sock=sock,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S if context else None,
                ssl_shutdown_timeout=HANDSHAKE_S if context else None,
            )
            servers.append(server)
    except BaseException as error:
        _undo(sockets, servers, connections, options.uds)
        if isinstance(error, OSError):
            raise named(error, options.uds or address_name(bound)) from None
        raise
    if options.uds is not None:
        return Front(servers, connections, options.uds, 0, options.uds)
    return Front(servers, connections, address_name(bound), bound[1], None)


def _undo(
    sockets: Sequence[socket.socket],
    servers: Sequence[asyncio.AbstractServer],
    connections: Connections,
    uds: str | None,
) -> None:
    """Leave nothing of a front that could not be opened."""
    for server in servers:
        server.close()
    for sock in sockets:
        sock.close()
    if uds is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uds)
    connections.stop()


def _speak_http2(connections: Connections, transport: asyncio.Transport, received: bytes) -> None:
    from headrace.front.http2 import Http2Connection  # 50 ms that many servers never need

    Http2Connection(connections).take_over(transport, received)
