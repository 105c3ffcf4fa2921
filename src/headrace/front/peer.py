"""Who a client is: address and certificate."""

from __future__ import annotations

import asyncio
import ssl


def peer_name(transport: asyncio.BaseTransport) -> str:
    """``host:port``, ``[host]:port`` for IPv6, ``unix`` for a unix socket."""
    name = transport.get_extra_info("peername")
    return address_name(name) if isinstance(name, tuple) else "unix"


def address_name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """The client's certificate (DER), if TLS asked for one and got it."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) if tls is not None else None
