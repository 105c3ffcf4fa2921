"""What the exchanges of HTTP/1.1 and HTTP/2 have in common: the request, and who is told what."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger("headrace.front")


class BaseExchange:
    """The request side of ``Exchange``. Subclasses set every field: that saves a call a request."""

    __slots__ = (
        "_blocked",
        "body",
        "gone",
        "headers",
        "method",
        "on_drain",
        "on_gone",
        "path",
        "peer",
        "query",
        "scheme",
    )

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peer: str
    scheme: str
    gone: bool
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None
    _blocked: bool
    """``send`` said stop, and ``on_drain`` is owed."""

    def header(self, name: bytes) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def leave(self) -> None:
        """The client has left; for the connection to call."""
        self.gone = True
        on_gone = self.on_gone
        self._detach()
        if on_gone is not None:
            self._tell(on_gone)

    def drained(self) -> None:
        """There is room again; for the connection to call."""
        if self._blocked:
            self._blocked = False
            if self.on_drain is not None:
                self._tell(self.on_drain)

    def _tell(self, callback: Callable[[], None]) -> None:
        """One exchange's mistake must not keep the others of its connection from being told."""
        try:
            callback()
        except Exception:  # noqa: BLE001  (the boundary to the application)
            _log.exception("a callback of %s %s raised", self.method, self.path)

    def _detach(self) -> None:
        """Let go of the connection and of the callbacks: nothing later may touch the next request."""
        raise AssertionError("every exchange has its own")
