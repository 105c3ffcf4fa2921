"""How a client's address is written."""

from __future__ import annotations

import asyncio


def peer_name(transport: asyncio.BaseTransport) -> str:
    """``host:port``, ``[host]:port`` for IPv6, ``unix`` for a unix socket."""
    name = transport.get_extra_info("peername")
    return address_name(name) if isinstance(name, tuple) else "unix"


def address_name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
