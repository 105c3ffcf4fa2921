"""Listening sockets. What every accepted connection should have is set here: Linux hands it down."""

from __future__ import annotations

import errno
import os
import socket
import stat

UNSENT_IN_KERNEL_BYTES = 128 * 1024
"""Bytes of a connection that the kernel takes beyond what it has sent; the rest waits here, counted."""

_INHERITED = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_IN_KERNEL_BYTES),
    (
        socket.SOL_SOCKET,
        "SO_KEEPALIVE",
        1,
    ),  # a client that lost its power is noticed in two minutes
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
)


class CannotListen(OSError):
    """A front cannot be opened as it was told; the message says with what and why."""


class AddressTaken(CannotListen):
    """Another process listens there already; the message names the address."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EADDRINUSE, f"{address} is taken by another process")


def tcp_sockets(host: str, port: int, *, reuse_port: bool, stall_s: float) -> list[socket.socket]:
    """Bound, not yet listening, one an address of ``host``; all on one port, also if ``port`` is 0.
    ``stall_s``: how long what was sent may stay unacknowledged.
    Raises :class:`AddressTaken` or another OSError that names the address."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise CannotListen(error.errno, f"{host} is not an address of this machine") from None
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sock = _tcp(family, str(address[0]), port, reuse_port)
            bound.append(sock)
            _set(sock, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(stall_s * 1000))
            port = bound[0].getsockname()[1]
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _tcp(family: int, host: str, port: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in _INHERITED:
            _set(sock, *option)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise named(error, f"[{host}]:{port}" if ":" in host else f"{host}:{port}") from None
    return sock


def _set(sock: socket.socket, level: int, name: str, value: int) -> None:
    if hasattr(socket, name):  # else it is of another operating system
        sock.setsockopt(level, getattr(socket, name), value)


def unix_socket(path: str) -> socket.socket:
    """Bound at ``path``; a socket that a dead process left there is replaced.
    Raises :class:`AddressTaken` or another OSError that names the path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_socket(path):
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "taken")
            os.unlink(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise named(error, path) from None
    return sock


def named(error: OSError, address: str) -> OSError:
    """The same error, naming the address that could not be listened on."""
    if error.errno == errno.EADDRINUSE:
        return AddressTaken(address)
    return CannotListen(error.errno, f"cannot listen on {address}: {error.strerror}")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
