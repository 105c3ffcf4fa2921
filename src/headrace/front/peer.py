"""Who a client is: address and certificate."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any


def peer_name(transport: asyncio.BaseTransport) -> str:
    """``host:port``, ``[host]:port`` for IPv6, ``unix`` for a unix socket."""
    name = transport.get_extra_info("peername")
    return address_name(name) if isinstance(name, tuple) else "unix"


def address_name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def certificate_names(transport: asyncio.BaseTransport) -> tuple[str, ...] | None:
    """The URIs in the subjectAltName of the client's certificate, which TLS has verified; None without one."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    found: Any = tls.getpeercert() if tls is not None else None
    if not found:
        return None
    return tuple([name for kind, name in found.get("subjectAltName", ()) if kind == "URI"])
