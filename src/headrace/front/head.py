"""Request heads: llhttp judges the syntax, this module the framing. Strict: what two servers could
read differently is refused (RFC 9112 §11.2).

A head is parsed in one piece, when all of it has arrived; so one parser serves every connection of
a front, and an idle connection holds none. What was judged once is not judged again: a client's
requests mostly differ in their ``content-length`` alone.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from headrace.front.exchange import Head
from headrace.front.limits import Limits
from headrace.front.refusal import Refusal
from headrace.front.target import RequestLine, request_line

CHUNKED = -1
"""Stands for the length of a body that comes in chunks."""

_COMMON = (
    b"Host Connection Content-Length Content-Type Transfer-Encoding Expect Accept Accept-Encoding "
    b"Accept-Language Authorization User-Agent Cache-Control Cookie Origin Referer Pragma Via "
    b"X-Request-ID X-Request-Id X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Real-IP "
    b"X-On-Disconnect X-Abort-Token X-Stream-Events X-Generation-Id Last-Event-ID Idempotency-Key "
    b"Traceparent Tracestate Baggage X-Stainless-Lang X-Stainless-Package-Version X-Stainless-OS "
    b"X-Stainless-Arch X-Stainless-Runtime X-Stainless-Runtime-Version X-Stainless-Async "
    b"X-Stainless-Retry-Count X-Stainless-Read-Timeout"
).split()
_LOWER = {name: name.lower() for name in _COMMON} | {name.lower(): name.lower() for name in _COMMON}
_FRAMING = frozenset((b"host", b"connection", b"content-length", b"transfer-encoding", b"expect"))

_LINES = 1024
"""Request lines whose parts are remembered; when full, all are forgotten."""
_LINE_BYTES = 256
"""Longer lines are not remembered."""
_HEADS = 256
"""Heads that are remembered; when full, all are forgotten."""
_HEAD_BYTES = 2048
"""Longer heads are not remembered."""
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
LENGTH_DIGITS = 10
"""Longer lengths, written with zeros in front, are not remembered."""


class HeadParser:
    """Parses heads one after the other. ``length``: of the last one's body in bytes, or ``CHUNKED``.
    ``expects_continue``: its client waits for ``100 Continue``."""

    __slots__ = (
        "_closes",
        "_coding",
        "_complete",
        "_fields",
        "_heads",
        "_hosts",
        "_keeps",
        "_limits",
        "_lines",
        "_llhttp",
        "expects_continue",
        "length",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[bytes, RequestLine] = {}
        self._heads: dict[bytes, Head] = {}
        self._llhttp = HttpRequestParser(self)
        self._forget()

    def _forget(self) -> None:
        self.length = 0
        self.expects_continue = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._coding = b""
        self._hosts = 0
        self._closes = False
        self._keeps = False
        self._complete = False

    def parse(self, raw: bytes) -> Head:
        """``raw`` ends with its empty line. Raises :class:`Refusal`."""
        if len(raw) > self._limits.header_bytes:
            raise too_large(raw, self._limits)
        before, digits, after = _around_length(raw)
        key = before + after
        known = self._heads.get(key)
        if known is not None:
            self.length = int(digits or 0)
            self.expects_continue = False
            return known
        head = self._parse(raw)
        if key and not self._coding and not self.expects_continue and self._is_short(key):
            self._remember(key, head)
            if digits:
                head.before, head.after = before, after
        return head

    def _is_short(self, key: bytes) -> bool:
        return len(key) <= min(_HEAD_BYTES, self._limits.header_bytes - LENGTH_DIGITS)

    def _remember(self, key: bytes, head: Head) -> None:
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[key] = head

    def _parse(self, raw: bytes) -> Head:
        line = raw.partition(b"\r\n")[0]
        method, path, query, http10 = self._lines.get(line) or self._line(line)
        self._forget()
        try:
            self._llhttp.feed_data(raw)
        except HttpParserUpgrade:
            self._complete = False  # an offer, which is not taken up
        except HttpParserError as error:
            self._llhttp = HttpRequestParser(self)
            raise Refusal(400, f"malformed HTTP: {error}") from None
        keep_alive = not self._closes and (self._keeps or not http10)
        if not self._complete or not keep_alive or http10:
            # It waits for a body, or for nothing more: a new one costs 0.4 µs.
            self._llhttp = HttpRequestParser(self)
        if self._hosts != 1 or self._coding or len(self._fields) > self._limits.headers:
            self._check(http10)
        headers = tuple([field for field in self._fields if field[0] != b"content-length"])
        plain = keep_alive and not http10 and method != "HEAD"
        return Head(method, path, query, headers, http10, keep_alive, plain)

    def probe(self, beginning: bytes) -> None:
        """Look at an incomplete head. Raises :class:`Refusal` if it can no longer become a good one."""
        limits = self._limits
        if (
            len(beginning) > limits.target_bytes
            and b"\r\n" not in beginning[: limits.target_bytes + 64]
        ):
            raise Refusal(414, f"the request target is longer than {limits.target_bytes} bytes")
        if len(beginning) > limits.header_bytes:
            raise too_large(beginning, limits)
        try:
            HttpRequestParser(_Nobody()).feed_data(beginning)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            raise _malformed(beginning, error, limits) from None

    def begun(self, beginning: bytes) -> Head | None:
        """What the first line of a head that is refused says; None if it is not whole and good either."""
        line, whole, _ = beginning.partition(b"\r\n")
        if not whole:
            return None
        try:
            method, path, query, _ = request_line(line, self._limits.target_bytes)
        except Refusal:
            return None
        return Head(method, path, query, ())

    # llhttp's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = _LOWER.get(name) or name.lower()
        self._fields.append((name, value))
        if name in _FRAMING:
            self._framing(name, value)

    def on_message_complete(self) -> None:
        self._complete = True

    # Ours.

    def _framing(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"connection":
            value = value.lower()
            if b"close" in value:
                self._closes = True
            elif b"keep-alive" in value:
                self._keeps = True
        elif name == b"content-length":
            self.length = int(value)
        elif name == b"transfer-encoding":
            self._coding += value.strip().lower() + b","
        elif value.strip().lower() == b"100-continue":
            self.expects_continue = True
        else:
            self._coding += b"?"

    def _line(self, raw: bytes) -> RequestLine:
        line = request_line(raw, self._limits.target_bytes)
        if len(raw) <= _LINE_BYTES:
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[raw] = line
        return line

    def _check(self, http10: bool) -> None:
        if len(self._fields) > self._limits.headers:
            raise Refusal(431, f"more than {self._limits.headers} header fields")
        if self._hosts != 1 and (self._hosts or not http10):
            raise Refusal(400, "exactly one Host header is needed")
        if self._coding:
            self._check_coding(http10)

    def _check_coding(self, http10: bool) -> None:
        if b"?" in self._coding:
            raise Refusal(417, "the only expectation that can be met is 100-continue")
        if http10 or self.length:
            raise Refusal(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0")
        if self._coding != b"chunked,":
            raise Refusal(501, "the only transfer coding taken is chunked")
        self.length = CHUNKED


def _around_length(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before the digits of the head's ``content-length``, these, and what is after them. Heads that
    differ in the digits differ in nothing that is judged. Nothing at all where the length is not
    written as nearly all clients write it; a head without one is all before."""
    for name in _LENGTHS:
        at = raw.find(name)
        if at >= 0:
            start = at + len(name)
            end = raw.find(b"\r\n", start)
            digits = raw[start:end]
            if digits.isdigit() and len(digits) <= LENGTH_DIGITS:
                return raw[:start], digits, raw[end:]
            return b"", b"", b""
    return (b"" if b"length:" in raw.lower() else raw), b"", b""


class _Nobody:
    """Whom a probing parser calls: it only looks for errors."""

    __slots__ = ()


def too_large(head: bytes, limits: Limits) -> Refusal:
    end = head.find(b"\r\n")
    if end < 0 or end > limits.target_bytes + 32:
        return Refusal(414, f"the request target is longer than {limits.target_bytes} bytes")
    return Refusal(431, f"the header fields are longer than {limits.header_bytes} bytes")


def _malformed(head: bytes, error: HttpParserError, limits: Limits) -> Refusal:
    line, _, rest = head.partition(b"\r\n")
    if rest:
        try:
            request_line(line, limits.target_bytes)  # its own refusal says more
        except Refusal as refusal:
            return refusal
    return Refusal(400, f"malformed HTTP: {error}")
