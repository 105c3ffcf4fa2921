"""How messages and the status of a call lie in an HTTP body: gRPC, gRPC-Web (binary, base64), Connect (streams,
single)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol
from urllib.parse import quote

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.errors import Header, Manner
from headrace.protocols.grpc.codec import Codec
from headrace.protocols.grpc.compression import decompressed, is_compressed
from headrace.protocols.grpc.rpcs import Method
from headrace.protocols.grpc.status import Status, packed, status_of
from headrace.protocols.grpc.tracing import GRPC, System

HEAD_BYTES = 5
"""Of an envelope: flags, and the length of the message."""
_COMPRESSED = 0x01
_CONNECT_END = 0x02
_TRAILERS = 0x80
_PRINTABLE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""Beside letters and digits: what `grpc-message` has as it is."""
_encode_json = msgspec.json.Encoder().encode

_CONNECT_CODES: dict[int, tuple[str, int]] = {
    1: ("canceled", 499),
    2: ("unknown", 500),
    3: ("invalid_argument", 400),
    4: ("deadline_exceeded", 504),
    5: ("not_found", 404),
    6: ("already_exists", 409),
    7: ("permission_denied", 403),
    8: ("resource_exhausted", 429),
    9: ("failed_precondition", 400),
    10: ("aborted", 409),
    11: ("out_of_range", 400),
    12: ("unimplemented", 501),
    13: ("internal", 500),
    14: ("unavailable", 503),
    15: ("data_loss", 500),
    16: ("unauthenticated", 401),
}
"""gRPC's numbers as Connect names them, with its HTTP status. https://connectrpc.com/docs/protocol#error-codes"""
_CONNECT = System("connectrpc", ("", *(name for name, _ in _CONNECT_CODES.values())))


class Framing(Protocol):
    """Of one call. ``streams``: whether it is for methods that stream; None: for any. ``system``: whose it is.
    ``accepts``: the header that tells clients how they may compress."""

    streams: ClassVar[bool | None]
    in_pieces: ClassVar[bool]
    """Whether an answer of one message is sent like one of many."""
    more_headers: ClassVar[Sequence[Header]]
    """Of an answer that is sent in pieces."""
    system: ClassVar[System]
    accepts: ClassVar[bytes]
    content_type: str

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None: ...

    def messages(self, body: bytes, fields: Mapping[bytes, bytes], limit_bytes: int) -> list[bytes]:
        """What the client sent, as serialized messages; of compressed ones at most ``limit_bytes`` together. Raises
        ``INVALID_REQUEST``, ``UNSUPPORTED_ENCODING``, ``BODY_TOO_LARGE``."""

    def message(self, message: bytes) -> bytes: ...

    def end(self, status: Status) -> bytes:
        """What says how the call ended."""

    def trailers(self, status: Status) -> Sequence[Header]:
        """The same as fields behind the body, where the framing has them there."""

    def head(self, status: Status) -> tuple[int, str]:
        """HTTP status and content type of an answer that is sent whole."""


class GrpcWeb:
    """Envelopes of flags, length and message; the trailers are the last."""

    streams: ClassVar[bool | None] = None
    in_pieces: ClassVar[bool] = False
    more_headers: ClassVar[Sequence[Header]] = (
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    )
    system: ClassVar = GRPC
    accepts: ClassVar[bytes] = b"grpc-accept-encoding"
    coding: ClassVar[bytes] = b"grpc-encoding"
    """The header that says how messages are compressed."""

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None:
        self._codec = codec
        self._method = method
        self.content_type = content_type

    def messages(self, body: bytes, fields: Mapping[bytes, bytes], limit_bytes: int) -> list[bytes]:
        decode, kind = self._codec.decode, self._method.request
        limit = limit_bytes if is_compressed(fields.get(self.coding)) else None
        return [decode(message, kind) for message in opened(body, limit)]

    def message(self, message: bytes) -> bytes:
        return enveloped(0, self._codec.encode(message, self._method.response))

    def end(self, status: Status) -> bytes:
        lines = [b"%b: %b\r\n" % field for field in status_fields(status)]
        return enveloped(_TRAILERS, b"".join(lines))

    def trailers(self, status: Status) -> Sequence[Header]:
        return ()

    def head(self, status: Status) -> tuple[int, str]:
        return 200, self.content_type


class Grpc(GrpcWeb):
    """gRPC itself: how the call ended is said behind the body."""

    in_pieces: ClassVar[bool] = True
    more_headers: ClassVar[Sequence[Header]] = ()

    def end(self, status: Status) -> bytes:
        return b""

    def trailers(self, status: Status) -> Sequence[Header]:
        return status_fields(status)


class GrpcWebText(GrpcWeb):
    """The same in base64, for clients that can only read text."""

    def messages(self, body: bytes, fields: Mapping[bytes, bytes], limit_bytes: int) -> list[bytes]:
        try:
            # Each piece that the client encoded may have its own padding.
            pieces = [body[at : at + 4] for at in range(0, len(body), 4)]
            whole = b64decode(body, validate=True) if b"=" not in body[:-2] else None
            data = whole if whole is not None else b"".join(map(_decoded_four, pieces))
        except NotBase64:
            raise HeadraceError(Code.INVALID_REQUEST, "The body is not base64.") from None
        return super().messages(data, fields, limit_bytes)

    def message(self, message: bytes) -> bytes:
        return b64encode(super().message(message))

    def end(self, status: Status) -> bytes:
        return b64encode(super().end(status))


class ConnectStream(GrpcWeb):
    """Envelopes too; the last says in JSON how it ended."""

    streams: ClassVar[bool | None] = True
    system: ClassVar = _CONNECT
    accepts: ClassVar[bytes] = b"connect-accept-encoding"
    coding: ClassVar[bytes] = b"connect-content-encoding"

    def end(self, status: Status) -> bytes:
        said: dict[str, object] = {}
        if status.error is not None:
            said["error"] = _connect_error(status)
        metadata = {name: [value] for name, value in status.trailers if isinstance(value, str)}
        if metadata:
            said["metadata"] = metadata
        return enveloped(_CONNECT_END, _encode_json(said))


class ConnectUnary:
    """A body is a message; an error is an HTTP status and JSON."""

    streams: ClassVar[bool | None] = False
    in_pieces: ClassVar[bool] = False
    more_headers: ClassVar[Sequence[Header]] = ()
    system: ClassVar = _CONNECT
    accepts: ClassVar[bytes] = b"accept-encoding"

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None:
        self._codec = codec
        self._method = method
        self.content_type = content_type

    def messages(self, body: bytes, fields: Mapping[bytes, bytes], limit_bytes: int) -> list[bytes]:
        if is_compressed(fields.get(b"content-encoding")):
            body = decompressed(body, limit_bytes)
        return [self._codec.decode(body, self._method.request)]

    def message(self, message: bytes) -> bytes:
        return self._codec.encode(message, self._method.response)

    def end(self, status: Status) -> bytes:
        return _encode_json(_connect_error(status)) if status.error is not None else b""

    def trailers(self, status: Status) -> Sequence[Header]:
        return ()

    def head(self, status: Status) -> tuple[int, str]:
        if status.error is None:
            return 200, self.content_type
        return _CONNECT_CODES[status.code][1], "application/json"


def status_fields(status: Status) -> list[Header]:
    """How a call ended, as gRPC says it."""
    fields = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        fields.append((b"grpc-message", quote(status.message, safe=_PRINTABLE).encode()))
    for name, value in status.trailers:
        if isinstance(value, bytes):
            value = b64encode(value).rstrip(b"=").decode()
        fields.append((name.encode("latin-1"), value.encode("latin-1")))
    return fields


def enveloped(flags: int, data: bytes) -> bytes:
    return b"%c%b%b" % (flags, len(data).to_bytes(4, "big"), data)


def opened(body: bytes, limit_bytes: int | None) -> list[bytes]:
    """The messages of a body of envelopes, those that are compressed as they were. ``limit_bytes``: of these
    together; None: nobody said how they would be. Raises ``INVALID_REQUEST``, ``BODY_TOO_LARGE``."""
    found = []
    at = 0
    while at < len(body):
        end = at + HEAD_BYTES + int.from_bytes(body[at + 1 : at + HEAD_BYTES], "big")
        if len(body) - at < HEAD_BYTES or end > len(body):
            raise HeadraceError(Code.INVALID_REQUEST, "The body ends within a message.")
        flags, message = body[at], body[at + HEAD_BYTES : end]
        at = end
        if flags & (_TRAILERS | _CONNECT_END):
            continue
        if flags & _COMPRESSED:
            if limit_bytes is None:
                said = "A message is compressed, and no header says how."
                raise HeadraceError(Code.INVALID_REQUEST, said)
            message = decompressed(message, limit_bytes)
            limit_bytes -= len(message)
        found.append(message)
    return found


def _decoded_four(piece: bytes) -> bytes:
    return b64decode(piece, validate=True)


class ConnectManner:
    """Implements :class:`headrace.protocols.errors.Manner`, for what fails before it is a call."""

    id_header: bytes | None = None

    def failure(self, error: HeadraceError, request_id: str) -> tuple[int, bytes]:
        return error.meaning.http, _encode_json(_connect_error(status_of(error)))


CONNECT_MANNER: Manner = ConnectManner()


def _connect_error(status: Status) -> dict[str, object]:
    assert status.error is not None
    detail = packed(status.error)
    return {
        "code": _CONNECT_CODES[status.code][0],
        "message": status.message,
        "details": [
            {
                "type": detail.type_url.rpartition("/")[2],
                "value": b64encode(detail.value).rstrip(b"=").decode(),
            }
        ],
    }
