"""How the answer of an upstream is received: by calls on a sink, or collected as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from headrace.domain.errors import Code, HeadraceError

Headers = dict[bytes, bytes]
"""Names as the upstream wrote them (few answers' are looked at: :func:`lower`), of equal ones the last."""


class Call(Protocol):
    """An HTTP request under way."""

    def cancel(self) -> None:
        """Close its connection at once: that is what frees an engine's slot. Idempotent."""


class Carrier(Protocol):
    """The connection that a call is on."""

    def leave(self) -> None:
        """Nobody waits for the answer any more: close."""


class ResponseSink(msgspec.Struct, kw_only=True, eq=False):
    """Receives one HTTP answer: ``head``, any number of ``body``, then ``end``; or ``whole``, if one read
    brought all of it; or at any point ``failed``, once and last. After :meth:`cancel` nothing more comes.

    It is the :class:`Call` too, from the moment it is asked for, so that a request has one object; and a
    struct, so that this is made without a frame of Python. ``request`` is kept until a byte of the answer
    came, for the one repetition that a connection closed while idle deserves. ``over``: nothing more is
    wanted.
    """

    request: bytes = b""
    connection: Carrier | None = None
    over: bool = False
    repeated: bool = False

    def head(self, status: int, headers: Headers) -> None:
        """The final status (never 1xx), when the first of the body or the end came. ``headers``: of
        anything but a 200, whose headers say nothing that anybody needs."""

    def body(self, data: bytes) -> None:
        """What one read brought, the transfer coding removed."""

    def end(self) -> None:
        """The answer is complete."""

    def failed(self, error: HeadraceError) -> None:
        """There will be no complete answer."""

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """All of an answer that one read brought."""
        self.head(status, headers)
        if body:
            self.body(body)
        if not self.over:
            self.end()

    def cancel(self) -> None:
        """As :meth:`Call.cancel` says."""
        self.over = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.leave()


class Response(NamedTuple):
    """A whole answer. ``headers`` as :meth:`ResponseSink.head` has them."""

    status: int
    headers: Headers
    body: bytes


class Kept:
    """An answer that is kept until its end: its head, and body as far as it is wanted."""

    __slots__ = ("_parts", "_size", "headers", "status")

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        """All of it so far."""
        return b"".join(self._parts)

    def add(self, data: bytes, limit_bytes: int) -> bool:
        """More body. False: it is not kept, there is too much."""
        self._size += len(data)
        if self._size > limit_bytes:
            return False
        self._parts.append(data)
        return True


class Collect(ResponseSink):
    """Hands the whole answer over, at most ``limit_bytes`` of body."""

    found: Callable[[Response], None]
    on_failure: Callable[[HeadraceError], None]
    limit_bytes: int
    _kept: Kept | None = None

    def head(self, status: int, headers: Headers) -> None:
        self._kept = Kept(status, headers)

    def body(self, data: bytes) -> None:
        if self._kept is not None and not self._kept.add(data, self.limit_bytes):
            self.cancel()
            self.on_failure(too_large(self.limit_bytes))

    def end(self) -> None:
        if self._kept is not None:
            self.found(Response(self._kept.status, self._kept.headers, self._kept.body))

    def failed(self, error: HeadraceError) -> None:
        self.on_failure(error)


def lower(headers: Headers) -> Headers:
    """With names in lower case, to look one up."""
    return {name.lower(): value for name, value in headers.items()}


def too_large(limit_bytes: int) -> HeadraceError:
    """The error of an answer over its bound."""
    return HeadraceError(
        Code.ENGINE_FAILED,
        f"The engine's answer is larger than {limit_bytes} bytes; its operator can say why.",
    )
