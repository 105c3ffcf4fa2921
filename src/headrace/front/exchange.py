"""The port between HTTP and everything above it: one request, and the way to answer it.

Callback-driven and synchronous: no task per request. HTTP/1.1 and HTTP/2 implement it; what is above
cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]

HIGH_WATER_BYTES = 64 * 1024
"""Unsent bytes of one exchange above which :meth:`Exchange.send` says stop."""


class Exchange(Protocol):
    """One HTTP request whose body is complete, and its answer.

    ``path`` is percent-decoded without the query, ``query`` the raw query string. Header names are
    lower case; ``peer`` is ``host:port``, ``[host]:port`` or ``unix``. Exactly one of ``respond`` or
    ``start … end`` answers it. ``on_gone`` is called once, if the client leaves before the answer is
    complete (not after ``abort``); ``on_drain`` after ``send`` returned False and the unsent bytes fell
    below the low-water mark. Calls after the client is gone, or after the answer, do nothing.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peer: str
    scheme: str
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None

    def header(self, name: bytes) -> str | None:
        """The header's value (latin-1), the first one if there are several; None if there is none."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once; ``content-length`` is added."""

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer."""

    def send(self, data: bytes) -> bool:
        """A piece of the streamed body, written at once. False: more than ``HIGH_WATER_BYTES`` are unsent,
        so send nothing more until ``on_drain``."""

    def end(self) -> None:
        """The streamed answer is complete; the connection may serve the next request."""

    def abort(self) -> None:
        """Break the connection (or reset the HTTP/2 stream)."""


Handler = Callable[[Exchange], None]
"""Called once per request on the event loop. Must not block; must not raise (a raise is answered 500)."""
