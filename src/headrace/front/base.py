"""What the exchanges of HTTP/1.1 and HTTP/2 have in common: the request, and who is told what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.front.exchange import Head, Headers, Part

_log = logging.getLogger("headrace.front")


class BaseExchange(msgspec.Struct, eq=False):
    """The request side of ``Exchange``. A struct, since that is made without a call in Python."""

    connection: Any
    """Of HTTP/1.1 or HTTP/2. Kept when the exchange is over: see :attr:`open`."""
    head: Head
    body: bytes
    """A ``memoryview`` where the front was told that the handler takes it."""
    on_gone: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    on_data: Callable[[bytes], None] | None = None
    arrives: bool = False
    gone: bool = False
    blocked: bool = False
    """``send`` said stop, and ``on_drain`` is owed."""

    __repr__ = object.__repr__  # a request has secrets

    @property
    def peer(self) -> str:
        name: str = self.connection.peer
        return name

    @property
    def scheme(self) -> str:
        scheme: str = self.connection.shared.scheme
        return scheme

    @property
    def certificate(self) -> tuple[str, ...] | None:
        names: tuple[str, ...] | None = self.connection.certificate
        return names

    def leave(self) -> None:
        """The client has left; for the connection to call."""
        self.gone = True
        on_gone = self.on_gone
        self.close()
        if on_gone is not None:
            self._tell(on_gone)

    def drained(self) -> None:
        """There is room again; for the connection to call."""
        if self.blocked:
            self.blocked = False
            if self.on_drain is not None:
                self._tell(self.on_drain)

    def _tell(self, callback: Callable[..., None], *arguments: bytes) -> None:
        """One exchange's mistake must not keep the others of its connection from being told."""
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  (the boundary to the application)
            _log.exception("a callback of %s %s raised", self.head.method, self.head.path)

    def take(self, size: int) -> None:
        raise NotImplementedError

    def crash(self) -> None:
        """The handler raised, which is being handled: logged here and only here. For the connection to call."""
        _log.exception("the handler of %s %s raised", self.head.method, self.head.path)
        if not self.open:
            return
        if self.started:
            self.abort()
        else:
            headers, body = self.connection.shared.refuse(500, "internal error", self.head)
            self.respond(500, headers, body)

    def close(self) -> None:
        """Let go of the callbacks: nothing later may touch the connection, which has its next request."""
        raise NotImplementedError

    @property
    def open(self) -> bool:
        """Whether there is somebody to answer, and something left to say."""
        raise NotImplementedError

    @property
    def started(self) -> bool:
        """Whether the answer's head is out."""
        raise NotImplementedError

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        raise NotImplementedError

    def respond_parts(self, status: int, headers: Headers, parts: Sequence[Part]) -> None:
        self.respond(status, headers, b"".join(parts))

    def abort(self) -> None:
        raise NotImplementedError
