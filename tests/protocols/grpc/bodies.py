"""Bodies of gRPC-Web and Connect, as clients send them and damaged; and what is in an answer of theirs."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from typing import Any, NamedTuple

from google.protobuf.json_format import Error as NotInJson
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from hypothesis import strategies as st
from tests.protocols.grpc.shapes import METADATA, METHODS, damaged, message

from headrace.protocols.grpc import headrace_pb2 as pb

WEB = ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json")
TEXT = ("application/grpc-web-text", "application/grpc-web-text+proto")
STREAMS = ("application/connect+proto", "application/connect+json")
SINGLE = ("application/proto", "application/json")
KINDS = (*WEB, *TEXT, *STREAMS, *SINGLE)
_ODD_KINDS = (
    "",
    "text/plain",
    "application/grpc",
    "application/json; charset=utf-8",
    "application/PROTO",
)
_FRAMED = (*WEB, *TEXT, *STREAMS)
_GZIP = (b"content-encoding", b"gzip")
_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"grpc-timeout", b"0m"),
    (b"grpc-timeout", b"1H"),
    (b"grpc-timeout", b"99999999H"),
    (b"grpc-timeout", b"-1S"),
    (b"grpc-timeout", b"\xb2S"),
    (b"connect-timeout-ms", b"0"),
    (b"connect-timeout-ms", b"9999999999"),
    (b"connect-timeout-ms", b"1.5"),
    (b"connect-protocol-version", b"1"),
    (b"connect-protocol-version", b"2"),
    _GZIP,
    (b"connect-content-encoding", b"gzip"),
    (b"connect-content-encoding", b"br"),
    (b"grpc-encoding", b"gzip"),
    (b"accept", b"text/html"),
    (b"te", b"trailers"),
)


class Asked(NamedTuple):
    method: str
    kind: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def kind_for(method: str) -> st.SearchStrategy[str]:
    """A content type that its clients use."""
    streams = METHODS[method].server_streaming
    return st.sampled_from((*WEB, *TEXT, *(STREAMS if streams else SINGLE)))


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """Whatever may come to the path of a method."""
    method = draw(st.sampled_from(list(METHODS)))
    kind = draw(kind_for(method) | st.sampled_from((*KINDS, *_ODD_KINDS)))
    count = draw(st.sampled_from([1, 1, 1, 0, 2]) if method != "Converse" else st.integers(0, 4))
    messages = [coded(draw(message(method)), kind) for _ in range(count)]
    body = draw(laid(messages, kind))
    headers = draw(st.lists(st.sampled_from(_HEADERS), max_size=2))
    if _GZIP in headers and draw(st.booleans()):
        body = gzip.compress(body)
    return Asked(method, kind, (*headers, *draw(METADATA)), body)


def body_of(made: Message, kind: str) -> bytes:
    """A body of one message, as it should be."""
    data = coded(made, kind)
    if kind in SINGLE:
        return data
    body = b"\0" + len(data).to_bytes(4, "big") + data
    return b64encode(body) if kind in TEXT else body


def coded(made: Message, kind: str) -> bytes:
    """A message as the body of this type has it."""
    if not kind.endswith("json"):
        return made.SerializeToString()
    return in_json(made) or b'{"options": {"n": 1e999, "stop": [NaN]}}'


def in_json(made: Message) -> bytes | None:
    """None for what has a number that JSON has not."""
    try:
        return MessageToJson(made).encode()
    except (ValueError, NotInJson):
        return None


@st.composite
def laid(draw: st.DrawFn, messages: list[bytes], kind: str) -> bytes:
    """Messages in a body, with accidents at every level."""
    pieces = [draw(damaged(one)) if draw(st.booleans()) else one for one in messages]
    if kind in _FRAMED:
        pieces = [draw(framed(piece)) for piece in pieces]
        if draw(st.sampled_from([False, False, True])):
            pieces.append(draw(framed(draw(st.binary(max_size=9)))))
    body = b"".join(pieces)
    if kind in TEXT:
        body = draw(in_text(body))
    return draw(damaged(body)) if draw(st.sampled_from([False, False, True])) else body


@st.composite
def framed(draw: st.DrawFn, data: bytes) -> bytes:
    """In an envelope: most of them right, some of them compressed."""
    flags = draw(st.sampled_from([0, 0, 0, 0, 0, 1, 1, 2, 0x80, 0x82, 0xFF]))
    if flags == 1 and draw(st.booleans()):
        data = gzip.compress(data)
        if draw(st.booleans()):
            data = draw(damaged(data))
    off = draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1, 2**31, -9]))
    return bytes([flags]) + ((len(data) + off) % 2**32).to_bytes(4, "big") + data


@st.composite
def in_text(draw: st.DrawFn, body: bytes) -> bytes:
    """In base64, cut anywhere before, each piece with its own padding."""
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    edges = zip([0, *cuts], [*cuts, len(body)], strict=True)
    return b"".join(b64encode(body[start:end]) for start, end in edges)


class Said(NamedTuple):
    """How a call was answered. ``code``: gRPC's number; ``messages``: those of the method."""

    code: int
    messages: list[Any]


_CODES = {
    "canceled": 1,
    "unknown": 2,
    "invalid_argument": 3,
    "deadline_exceeded": 4,
    "not_found": 5,
    "already_exists": 6,
    "permission_denied": 7,
    "resource_exhausted": 8,
    "failed_precondition": 9,
    "aborted": 10,
    "out_of_range": 11,
    "unimplemented": 12,
    "internal": 13,
    "unavailable": 14,
    "data_loss": 15,
    "unauthenticated": 16,
}


def understood(asked: Asked, http: int, content_type: str, body: bytes) -> Said:
    """An answer as a strict client reads it: what is not as its protocol wants it fails here."""
    response = getattr(pb, METHODS[asked.method].output_type.name)
    kind = asked.kind.partition(";")[0].lower()
    if kind in SINGLE:
        if http != 200:
            assert content_type == "application/json"
            return Said(_CODES[json.loads(body)["code"]], [])
        assert content_type == kind
        return Said(0, [_read(response, body, kind)])
    assert (http, content_type) == (200, kind)
    if kind in TEXT:
        body = b"".join(b64decode(body[at : at + 4]) for at in range(0, len(body), 4))
    messages = []
    while True:
        flags, size = body[0], int.from_bytes(body[1:5], "big")
        data, body = body[5 : 5 + size], body[5 + size :]
        assert len(data) == size
        if flags:
            break
        messages.append(_read(response, data, kind))
    assert not body, "there is something behind the end"
    if kind in STREAMS:
        assert flags == 2
        error = json.loads(data).get("error")
        return Said(_CODES[error["code"]] if error else 0, messages)
    assert flags == 0x80
    trailers = dict(line.split(": ", 1) for line in data.decode("latin-1").split("\r\n")[:-1])
    return Said(int(trailers["grpc-status"]), messages)


def _read(response: type[Message], data: bytes, kind: str) -> Any:
    if kind.endswith("json"):
        return json.loads(data)
    return response.FromString(data)
