"""The head of an HTTP/2 request (RFC 9113 §8.3). The library judges its syntax; what was judged once is not
judged again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from h2.utilities import HeaderValidationFlags, validate_headers

from headrace.front.exchange import Head
from headrace.front.limits import Limits
from headrace.front.refusal import Refusal
from headrace.front.target import METHODS, path_and_query

_TARGET = re.compile(rb"[!-~]+")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_HEADS = 256
"""Heads that are remembered; when full, all are forgotten."""
_HEAD_BYTES = 2048
"""Longer heads are not remembered."""
_OF_A_REQUEST = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")


class Http2Head(NamedTuple):
    """``length``: what ``content-length`` says, -1 without one."""

    head: Head
    length: int
    expects_continue: bool


KnownHeads = dict[tuple[tuple[bytes, bytes], ...], Http2Head]
"""Requests that are alike share their head."""


def shared_head(
    fields: Sequence[tuple[bytes, bytes]], limits: Limits, known: KnownHeads
) -> Http2Head:
    """Raises ``ProtocolError`` for what is no request, and :class:`Refusal`."""
    key = tuple(fields)
    head = known.get(key)
    if head is None:
        head = request_head(list(validate_headers(fields, _OF_A_REQUEST)), limits)
        if sum(len(name) + len(value) for name, value in fields) <= _HEAD_BYTES:
            if len(known) >= _HEADS:
                known.clear()
            known[key] = head
    return head


def request_head(fields: Sequence[tuple[bytes, bytes]], limits: Limits) -> Http2Head:
    """Raises :class:`Refusal`. ``:authority`` becomes ``host``; cookie crumbs are put together."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    crumbs: list[bytes] = []
    for name, value in fields:
        if name[:1] == b":":
            pseudo[bytes(name)] = bytes(value)
        elif not _VALUE.fullmatch(value):
            raise Refusal(400, "a header field has a control character in it")
        elif name == b"cookie":
            crumbs.append(value)
        else:
            headers.append((bytes(name), bytes(value)))
    if crumbs:
        headers.append((b"cookie", b"; ".join(crumbs)))
    if len(headers) > limits.headers:
        raise Refusal(431, f"more than {limits.headers} header fields")
    names = dict(headers)
    if b":authority" in pseudo and b"host" not in names:
        headers.insert(0, (b"host", pseudo[b":authority"]))
    elif b"host" not in names:
        raise Refusal(400, "the request has no :authority")
    method, path, query = _target(pseudo, limits)
    fields = tuple([field for field in headers if field[0] != b"content-length"])
    return Http2Head(
        Head(method, path, query, fields),
        _length(names.get(b"content-length")),
        names.get(b"expect", b"").lower() == b"100-continue",
    )


def begun(fields: Sequence[tuple[bytes, bytes]], limits: Limits) -> Head | None:
    """What the target of a head that is refused says; None if it is not good either."""
    try:
        return Head(*_target({bytes(name): bytes(value) for name, value in fields}, limits), ())
    except Refusal:
        return None


def _target(pseudo: dict[bytes, bytes], limits: Limits) -> tuple[str, str, str]:
    method = pseudo.get(b":method", b"").decode("latin-1")
    raw = pseudo.get(b":path", b"")
    if method not in METHODS:
        raise Refusal(501, f"method {method:.20} is not supported")
    if len(raw) > limits.target_bytes:
        raise Refusal(414, f"the request target is longer than {limits.target_bytes} bytes")
    if not _TARGET.fullmatch(raw):
        raise Refusal(400, "the request target has characters that must be percent-encoded")
    return (method, *path_and_query(method, raw.decode()))


def _length(value: bytes | None) -> int:
    if value is None:
        return -1
    if not _DIGITS.fullmatch(value):
        raise Refusal(400, "malformed content-length")
    return int(value)
