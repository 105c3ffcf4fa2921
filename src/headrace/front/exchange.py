"""The port between HTTP and everything above it: one request, and the way to answer it.

Callback-driven and synchronous: no task per request. HTTP/1.1 and HTTP/2 implement it; what is above
cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

Fields = tuple[tuple[bytes, bytes], ...]
Headers = Sequence[tuple[bytes, bytes]] | bytes
"""Fields of an answer. As bytes: whole lines, each with its CRLF, made by one who knows that no value of
them has a line break or NUL in it; they are not looked at again."""

Part = bytes | memoryview
"""Of a body; a view is one of bytes."""

HIGH_WATER_BYTES = 64 * 1024
"""Unsent bytes of one exchange above which :meth:`Exchange.send` says stop."""


class Head(msgspec.Struct, eq=False):
    """What a request's head says. All requests share one that differ in nothing but the length of their
    body: so nobody changes it, and ``headers`` (names in lower case) have no ``content-length``.

    ``path`` is percent-decoded without the query, ``query`` the raw query string. ``known`` is the handler's
    place for what it concludes from the head: it comes back with every request that shares the head, and is
    forgotten with it. ``plain``: a whole answer needs no ``connection`` header, and has its body.
    ``before`` and ``after``: the head's bytes around the digits of the length; ``after`` is empty where such a
    head is not remembered.
    """

    method: str
    path: str
    query: str
    headers: Fields
    http10: bool = False
    keep_alive: bool = True
    plain: bool = False
    before: bytes = b""
    after: bytes = b""
    known: Any = None

    __repr__ = object.__repr__  # there are secrets in it


class Exchange(Protocol):
    """One HTTP request whose body is complete, and its answer. Where the front ``opens`` or ``uploads`` requests, the
    body is empty and comes while it ``arrives``: ``on_data`` is called with each piece, and with an empty one at
    its end.

    ``peer`` is ``host:port``, ``[host]:port`` or ``unix``. Exactly one of ``respond`` or
    ``start … end`` answers it. ``on_gone`` is called once, if the client leaves before the answer is
    complete (not after ``abort``); ``on_drain`` after ``send`` returned False and the unsent bytes fell
    below the low-water mark. Calls after the client is gone, or after the answer, do nothing.
    """

    head: Head
    body: bytes
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None
    on_data: Callable[[bytes], None] | None

    @property
    def arrives(self) -> bool:
        """Whether more of the body is to come."""

    def take(self, size: int) -> None:
        """So many bytes more of the body may come: at first 256 KiB may."""

    @property
    def has_trailers(self) -> bool:
        """Whether fields can follow the body: over HTTP/2."""

    @property
    def peer(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    @property
    def certificate(self) -> tuple[str, ...] | None:
        """The URIs in the subjectAltName of the client's verified certificate; None without one."""

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
        """A piece of the streamed body, written at once. False: more than ``HIGH_WATER_BYTES`` are unsent,
        so send nothing more until ``on_drain``."""

    def end(self, trailers: Headers = ()) -> None:
        """The streamed answer is complete; the connection may serve the next request. ``trailers``: fields
        that follow it, where it ``has_trailers``."""

    def abort(self) -> None:
        """Break the connection (or reset the HTTP/2 stream)."""


Opens = Callable[[Head], bool]
"""Whether the handler is called with the head of such a request, before its body. Over HTTP/1.1 it never is."""
Handler = Callable[[Exchange], None]
"""Called once per request on the event loop. Must not block; must not raise (a raise is answered 500)."""
