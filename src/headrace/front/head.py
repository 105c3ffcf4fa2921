"""Request heads: llhttp judges the syntax, this module the framing. Strict: what two servers could
read differently is refused (RFC 9112 §11.2).

A head is parsed in one piece, when all of it has arrived; so one parser serves every connection of
a front, and an idle connection holds none.
"""

from __future__ import annotations

from collections.abc import Callable

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
_LINES = 1024
"""Request lines whose parts are remembered; when full, all are forgotten."""
_LINE_BYTES = 256
"""Longer lines are not remembered."""


class HeadParser:
    """Parses heads one after the other; the attributes describe the last one.

    ``headers``: lower-case names. ``length``: of the body in bytes, or ``CHUNKED``. ``keep_alive``: what
    the client asked for. ``expects_continue``: it waits for ``100 Continue``.
    """

    __slots__ = (
        "_limits",
        "_lines",
        "_listener",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[bytes, RequestLine] = {}
        self._listener = _Listener()
        self.headers: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.keep_alive = True
        self.expects_continue = False

    def parse(self, head: bytes) -> RequestLine:
        """``head`` ends with its empty line. Raises :class:`Refusal`."""
        if len(head) > self._limits.header_bytes:
            raise too_large(head, self._limits)
        raw = head[: head.find(b"\r\n")]
        line = self._lines.get(raw) or self._line(raw)
        first: dict[bytes, bytes] = {}
        # llhttp calls a dict's own method: a Python function for each field would take as long as llhttp.
        self._judge(head, first.setdefault)
        fields = {_LOWER.get(name) or name.lower(): value for name, value in first.items()}
        # A field has at least one line. As many names as lines: none came twice, none was folded.
        if head.count(b"\n") == len(fields) + 2:
            self.headers = list(fields.items())
        else:
            fields = self._repeated(head)
        self._frame(line, fields)
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

    def _judge(self, head: bytes, on_header: Callable[[bytes, bytes], object]) -> None:
        """Raises :class:`Refusal` for malformed syntax."""
        self._listener.on_header = on_header
        try:
            HttpRequestParser(self._listener).feed_data(head)
        except HttpParserUpgrade:
            pass  # an offer, which is not taken up
        except HttpParserError as error:
            raise Refusal(400, f"malformed HTTP: {error}") from None

    def _repeated(self, head: bytes) -> dict[bytes, bytes]:
        """Keep every field, also of the same name; gives them with their values joined (RFC 9110 §5.3)."""
        headers: list[tuple[bytes, bytes]] = []
        self._judge(head, lambda name, value: headers.append((name.lower(), value)))
        self.headers = headers
        joined: dict[bytes, bytes] = {}
        for name, value in headers:
            joined[name] = joined[name] + b"," + value if name in joined else value
        return joined

    def _frame(self, line: RequestLine, fields: dict[bytes, bytes]) -> None:
        """How long this request is, and whether another follows."""
        length = fields.get(b"content-length")
        self.length = 0 if length is None else int(length)
        connection = fields.get(b"connection")
        if connection is None:
            self.keep_alive = not line.http10
        else:
            connection = connection.lower()
            kept = not line.http10 or b"keep-alive" in connection
            self.keep_alive = kept and b"close" not in connection
        self.expects_continue = False
        if (
            b"host" not in fields
            or b"transfer-encoding" in fields
            or b"expect" in fields
            or len(self.headers) != len(fields)
            or len(fields) > self._limits.headers
        ):
            self._check(line, fields)

    def _line(self, raw: bytes) -> RequestLine:
        line = request_line(raw, self._limits.target_bytes)
        if len(raw) <= _LINE_BYTES:
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[raw] = line
        return line

    def _check(self, line: RequestLine, fields: dict[bytes, bytes]) -> None:
        if len(self.headers) > self._limits.headers:
            raise Refusal(431, f"more than {self._limits.headers} header fields")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and (hosts or not line.http10):
            raise Refusal(400, "exactly one Host header is needed")
        if b"expect" in fields:
            self._check_expectation(fields[b"expect"])
        if b"transfer-encoding" in fields:
            self._check_coding(line, fields[b"transfer-encoding"])

    def _check_expectation(self, expected: bytes) -> None:
        if {value.strip().lower() for value in expected.split(b",")} != {b"100-continue"}:
            raise Refusal(417, "the only expectation that can be met is 100-continue")
        self.expects_continue = True

    def _check_coding(self, line: RequestLine, coding: bytes) -> None:
        if line.http10 or self.length:
            raise Refusal(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0")
        if coding.strip().lower() != b"chunked":
            raise Refusal(501, "the only transfer coding taken is chunked")
        self.length = CHUNKED


class _Listener:
    """Whom a parser calls."""

    __slots__ = ("on_header",)

    on_header: Callable[[bytes, bytes], object]


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
