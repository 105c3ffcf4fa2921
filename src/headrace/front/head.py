"""Request heads: llhttp judges the syntax, this module the framing. Strict: what two servers could
read differently is refused (RFC 9112 §11.2).

A head is parsed in one piece, when all of it has arrived; so one parser serves every connection of
a front, and an idle connection holds none. What was judged once is not judged again: a client's
requests mostly differ in their ``content-length`` alone.
"""

from __future__ import annotations

from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

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
_LENGTH_DIGITS = 10


class _Known(NamedTuple):
    """What :class:`HeadParser` says of a head. ``length_at``: where ``headers`` have its length, or -1."""

    line: RequestLine
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    length_at: int


class HeadParser:
    """Parses heads one after the other; the attributes describe the last one.

    ``headers``: lower-case names. ``length``: of the body in bytes, or ``CHUNKED``. ``keep_alive``: what
    the client asked for. ``expects_continue``: it waits for ``100 Continue``.
    """

    __slots__ = (
        "_coding",
        "_complete",
        "_heads",
        "_hosts",
        "_kept",
        "_limits",
        "_lines",
        "_llhttp",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[bytes, RequestLine] = {}
        self._heads: dict[bytes, _Known] = {}
        self._llhttp = HttpRequestParser(self)
        self._forget()

    def _forget(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.keep_alive = True
        self.expects_continue = False
        self._coding = b""
        self._hosts = 0
        self._kept = False
        self._complete = False

    def parse(self, head: bytes) -> RequestLine:
        """``head`` ends with its empty line. Raises :class:`Refusal`."""
        if len(head) > self._limits.header_bytes:
            raise too_large(head, self._limits)
        key, digits = _without_length(head)
        known = self._heads.get(key)
        if known is not None:
            return self._recall(known, digits)
        line = self._parse(head)
        if key and len(key) <= _HEAD_BYTES and not self._coding and not self.expects_continue:
            self._remember(key, line, digits)
        return line

    def _recall(self, known: _Known, digits: bytes) -> RequestLine:
        line, headers, self.keep_alive, length_at = known
        self.headers = headers = headers.copy()
        self.length = 0
        self.expects_continue = False
        if length_at >= 0:
            headers[length_at] = (b"content-length", digits)
            self.length = int(digits)
        return line

    def _remember(self, key: bytes, line: RequestLine, digits: bytes) -> None:
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        at = self.headers.index((b"content-length", digits)) if digits else -1
        self._heads[key] = _Known(line, self.headers.copy(), self.keep_alive, at)

    def _parse(self, head: bytes) -> RequestLine:
        raw = head.partition(b"\r\n")[0]
        line = self._lines.get(raw) or self._line(raw)
        self._forget()
        try:
            self._llhttp.feed_data(head)
        except HttpParserUpgrade:
            self._complete = False  # an offer, which is not taken up
        except HttpParserError as error:
            self._llhttp = HttpRequestParser(self)
            raise Refusal(400, f"malformed HTTP: {error}") from None
        if line.http10:
            self.keep_alive = self._kept
        if not self._complete or not self.keep_alive or line.http10:
            # It waits for a body, or for nothing more: a new one costs 0.4 µs.
            self._llhttp = HttpRequestParser(self)
        if self._hosts != 1 or self._coding or len(self.headers) > self._limits.headers:
            self._check(line)
        return line

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

    # llhttp's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = _LOWER.get(name) or name.lower()
        self.headers.append((name, value))
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
                self.keep_alive = False
            elif b"keep-alive" in value:
                self._kept = True
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

    def _check(self, line: RequestLine) -> None:
        if len(self.headers) > self._limits.headers:
            raise Refusal(431, f"more than {self._limits.headers} header fields")
        if self._hosts != 1 and (self._hosts or not line.http10):
            raise Refusal(400, "exactly one Host header is needed")
        if self._coding:
            self._check_coding(line)

    def _check_coding(self, line: RequestLine) -> None:
        if b"?" in self._coding:
            raise Refusal(417, "the only expectation that can be met is 100-continue")
        if line.http10 or self.length:
            raise Refusal(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0")
        if self._coding != b"chunked,":
            raise Refusal(501, "the only transfer coding taken is chunked")
        self.length = CHUNKED


def _without_length(head: bytes) -> tuple[bytes, bytes]:
    """The head without the digits of its ``content-length``, and these. Such heads differ in nothing
    that is judged. No head at all where it is not written as nearly all clients write it."""
    for name in _LENGTHS:
        at = head.find(name)
        if at >= 0:
            start = at + len(name)
            end = head.find(b"\r\n", start)
            digits = head[start:end]
            if digits.isdigit() and len(digits) <= _LENGTH_DIGITS:
                return head[:start] + head[end:], digits
            return b"", b""
    return (b"" if b"length:" in head.lower() else head), b""


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
