"""How the answer of an upstream is received: by calls on a sink, or collected as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from headrace.domain.errors import Code, HeadraceError

Headers = dict[bytes, bytes]
"""Names as the upstream wrote them (few answers' are looked at: :func:`lower`), of equal ones the last."""


class ResponseSink(Protocol):
    """Receives one HTTP answer: ``head``, any number of ``body``, then ``end``; or at any point
    ``failed``, once and last. After :meth:`Call.cancel` nothing more comes."""

    def head(self, status: int, headers: Headers) -> None:
        """The final status (never 1xx) and its headers."""

    def body(self, data: bytes) -> None:
        """What one read brought, the transfer coding removed."""

    def end(self) -> None:
        """The answer is complete."""

    def failed(self, error: HeadraceError) -> None:
        """There will be no complete answer."""


class Call(Protocol):
    """An HTTP request under way."""

    def cancel(self) -> None:
        """Close its connection at once: that is what frees an engine's slot. Idempotent."""


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Collect:
    """A sink that gathers the whole answer, at most ``limit_bytes`` of body, and hands it over."""

    __slots__ = (
        "_failed",
        "_headers",
        "_limit_bytes",
        "_parts",
        "_size",
        "_status",
        "_whole",
        "call",
    )

    def __init__(
        self,
        whole: Callable[[Response], None],
        failed: Callable[[HeadraceError], None],
        limit_bytes: int,
    ) -> None:
        self.call: Call | None = None
        self._whole = whole
        self._failed = failed
        self._limit_bytes = limit_bytes
        self._status = 0
        self._headers: Headers = {}
        self._parts: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit_bytes:
            self._parts.append(data)
        elif self.call is not None:
            self.call.cancel()
            self._failed(too_large(self._limit_bytes))

    def end(self) -> None:
        self._whole(Response(self._status, self._headers, b"".join(self._parts)))

    def failed(self, error: HeadraceError) -> None:
        self._failed(error)


def lower(headers: Headers) -> Headers:
    """With names in lower case, to look one up."""
    return {name.lower(): value for name, value in headers.items()}


def too_large(limit_bytes: int) -> HeadraceError:
    """The error of an answer over its bound."""
    return HeadraceError(
        Code.ENGINE_FAILED,
        f"The engine's answer is larger than {limit_bytes} bytes; its operator can say why.",
    )
