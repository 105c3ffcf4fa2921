"""Request targets (RFC 9112 §3.2) and request lines, taken apart strictly."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from headrace.front.refusal import Refusal

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_LINE = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.([01])")
_VERSION = re.compile(rb"[A-Z]+ [!-~]+ HTTP/[0-9]\.[0-9]")
_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


class RequestLine(NamedTuple):
    method: str
    path: str
    query: str
    http10: bool


def request_line(line: bytes, target_bytes: int) -> RequestLine:
    """The line without its CRLF. Raises :class:`Refusal` 400, 414, 501 or 505."""
    match = _LINE.fullmatch(line)
    if match is None:
        if _VERSION.fullmatch(line):
            raise Refusal(505, "this server speaks HTTP/1.0, HTTP/1.1 and HTTP/2")
        raise Refusal(400, "malformed request line")
    method = match[1].decode()
    if method not in METHODS:
        raise Refusal(501, f"method {method:.20} is not supported")
    if len(match[2]) > target_bytes:
        raise Refusal(414, f"the request target is longer than {target_bytes} bytes")
    path, query = path_and_query(method, match[2].decode())
    return RequestLine(method, path, query, match[3] == b"0")


def path_and_query(method: str, target: str) -> tuple[str, str]:
    """Percent-decoded path and raw query. Raises :class:`Refusal` 400."""
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            rest = target[absolute.end() :]
            target = rest if rest.startswith("/") else "/" + rest
        elif target != "*" or method != "OPTIONS":
            raise Refusal(400, "the request target must begin with a slash")
    if "#" in target:
        raise Refusal(400, "the request target must not have a fragment")
    path, _, query = target.partition("?")
    return (unquote(path) if "%" in path else path), query
