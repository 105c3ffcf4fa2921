"""By which names is a server called that needs no key?

The page of any site may have its own name lead to 127.0.0.1 (DNS rebinding); for a browser it is then of one origin
with what answers there, and may ask it everything. Only the name that it calls gives it away, which no page can change.
So where nothing but its address protects a server, it answers to names of this machine alone, and to those that it
was told.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.call import Call
from headrace.protocols.port import Service

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w-]+(?:\.[\w-]+)*)\.?(?::\d*)?", re.ASCII)
"""``uri-host [":" port]`` (RFC 9110 §7.2): an IPv6 address in brackets, or names between dots, of which the last may
have one behind it."""
_HERE = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Hosts:
    """``allowed``: names beside those of this machine, in lower case and without a port."""

    __slots__ = ("_known",)

    def __init__(self, allowed: Sequence[str]) -> None:
        self._known = _HERE.union(name.lower() for name in allowed)

    def foreign(self, host: bytes | None) -> str | None:
        """The name in a ``Host`` or ``:authority`` if it is neither; None for one that is, or that is missing, as
        only HTTP/1.0 has it."""
        if host is None:
            return None
        said = host.decode("latin-1")
        found = _HOST.fullmatch(said)
        if found is None:
            return said
        name = found[1].lower()
        return None if name in self._known or _is_here(name) else name


def check_host(call: Call, service: Service) -> None:
    """Raise ``FORBIDDEN`` if its head has a foreign name, no key is needed, and it did not come by a unix socket,
    where no page is."""
    name = call.terms.foreign
    if name is not None and service.open and call.exchange.peer != "unix":
        raise HeadraceError(
            Code.FORBIDDEN,
            f"This server needs no key, and so it answers only to names of its own machine, not to {name[:80]!r}: a web"
            " page could be behind that (DNS rebinding). Who runs it can allow the name (--allowed-host), or make keys"
            " (headrace keys create).",
        )


def _is_here(name: str) -> bool:
    if name.endswith(".localhost"):  # RFC 6761 §6.3: it is loopback everywhere
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
