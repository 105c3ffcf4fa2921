"""The side of HTTP that protocols see: one request with its body, and the way to answer it.

The same shape as the front's own ``Exchange``, so that rooms need not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Headers = Sequence[tuple[bytes, bytes]] | bytes
"""Fields of an answer. As bytes: whole lines, each with its CRLF, made by one who knows that no value of
them has a line break or NUL in it; the front does not look at them again."""

Part = bytes | memoryview
"""Of a body; a view is one of bytes."""


class Head(Protocol):
    """What a request's head says. All requests share one that differ in nothing but the length of their
    body: so nobody changes it, and ``headers`` (names in lower case) have no ``content-length``. ``known``
    is our own place for what we conclude from it."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]
    known: Any


class Exchange(Protocol):
    """One HTTP request whose body is complete, if it is not said that it ``arrives``. Exactly one of ``respond``
    or ``start … end`` answers it; calls after the client is gone do nothing."""

    body: bytes
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None
    on_data: Callable[[bytes], None] | None

    @property
    def arrives(self) -> bool:
        """Whether more of the body is to come: ``on_data`` is called with each piece, and with an empty one at
        its end."""

    def take(self, size: int) -> None:
        """So many bytes more of the body may come; at first 256 KiB may."""

    @property
    def has_trailers(self) -> bool:
        """Whether fields can follow the body: over HTTP/2."""

    @property
    def head(self) -> Head: ...

    @property
    def certificate(self) -> tuple[str, ...] | None:
        """The URIs in the subjectAltName of the client's verified certificate; None without one."""

    @property
    def peer(self) -> str:
        """``host:port``, ``[host]:port`` or ``unix``."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once; ``content-length`` is added."""

    def respond_parts(self, status: int, headers: Headers, parts: Sequence[Part]) -> None:
        """The same, of a body in parts, which stay as they are until they are sent: none is copied over HTTP/1.1."""

    def start(self, status: int, headers: Headers) -> None:
        """The head of a streamed answer."""

    def send(self, data: bytes) -> bool:
        """A piece of the streamed body. False: too much is unsent, nothing more until ``on_drain``."""

    def end(self, trailers: Headers = ()) -> None:
        """The streamed answer is complete. ``trailers``: fields that follow it, where it ``has_trailers``."""

    def abort(self) -> None:
        """Break the connection (or reset the HTTP/2 stream)."""
