"""Heads of HTTP/1.1 answers, as bytes. What is the same for every answer of a second is made once."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from headrace.front.exchange import Head, Headers

Refuse = Callable[[int, str, Head | None], tuple[Headers, bytes]]
"""Renders a refusal (status, message) in whatever protocol the application speaks at that head's path. None where
too little of the head is known."""

BODYLESS = frozenset((204, 304))
"""Statuses whose answers have no body (RFC 9110 §6.4.1)."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class AnswerHeads(dict[int, bytes]):
    """How heads begin, by status: made when first asked for, at most one entry a status. ``renew`` once a
    second keeps ``date`` right; ``date`` is HTTP-date bytes."""

    __slots__ = ("date",)

    def __init__(self, unix_s: float) -> None:
        super().__init__()
        self.date = b""
        self.renew(unix_s)

    def renew(self, unix_s: float) -> None:
        date = formatdate(unix_s, usegmt=True).encode()
        if date != self.date:
            self.date = date
            self.update({status: self._start(status) for status in self})

    def whole(self, status: int, headers: Headers, more: bytes, body: bytes) -> bytes:
        """Head and body in one piece. ``more``: whole lines. Raises ValueError as :meth:`lines` does."""
        parts = (self[status], lines(headers), more, len(body), body)
        return b"%b%b%bcontent-length: %d\r\n\r\n%b" % parts

    def head(self, status: int, headers: Headers, more: bytes) -> bytes:
        """A head without ``content-length``."""
        return b"%b%b%b\r\n" % (self[status], lines(headers), more)

    def __missing__(self, status: int) -> bytes:
        start = self._start(status)
        if 200 <= status <= 599:
            self[status] = start
        return start

    def _start(self, status: int) -> bytes:
        reason = _REASONS.get(status, b"Status")
        return b"HTTP/1.1 %d %b\r\nserver: headrace\r\ndate: %b\r\n" % (status, reason, self.date)


def lines(headers: Headers) -> bytes:
    """Header fields as lines. Raises ValueError where a field would break out of its line."""
    if isinstance(headers, bytes):
        return headers
    if not headers:
        return b""
    block = b"\r\n".join(map(b": ".join, headers)) + b"\r\n"
    count = len(headers)
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        raise ValueError(f"a header of the answer has a line break or NUL in it: {block!r:.200}")
    return block


def pairs(block: bytes) -> list[tuple[bytes, bytes]]:
    """Lines as header fields, the reverse of :func:`lines`."""
    fields = [line.partition(b": ") for line in block.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in fields]


def plain_refusal(status: int, message: str, _: Head | None) -> tuple[Headers, bytes]:
    """The refusal of a front whose application gave none: one line of text."""
    return ((b"content-type", b"text/plain; charset=utf-8"),), f"{status} {message}\n".encode()
