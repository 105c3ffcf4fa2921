"""The side of HTTP that protocols see: one request with its body, and the way to answer it.

The same shape as the front's own ``Exchange``, so that rooms need not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]


class Exchange(Protocol):
    """One HTTP request whose body is complete. Exactly one of ``respond`` or ``start … end`` answers it;
    calls after the client is gone do nothing."""

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once; ``content-length`` is added."""

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer."""

    def send(self, data: bytes) -> bool:
        """A piece of the streamed body. False: too much is unsent, nothing more until ``on_drain``."""

    def end(self) -> None:
        """The streamed answer is complete."""

    def abort(self) -> None:
        """Break the connection (or reset the HTTP/2 stream)."""
