"""How messages and the status of a call lie in an HTTP body: gRPC, gRPC-Web (binary, base64), Connect (streams,
single)."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol
from urllib.parse import quote

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.errors import Header
from headrace.protocols.grpc.codec import Codec
from headrace.protocols.grpc.rpcs import Method
from headrace.protocols.grpc.status import Status, packed
from headrace.protocols.grpc.tracing import GRPC, System

HEAD_BYTES = 5
"""Of an envelope: flags, and the length of the message."""
_COMPRESSED = 0x01
_CONNECT_END = 0x02
_TRAILERS = 0x80
_PRINTABLE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""Beside letters and digits: what `grpc-message` has as it is."""
INFLATED_BYTES = 16 * 1024 * 1024
"""Of a message that came compressed."""
_WBITS = {b"gzip": 31, b"deflate": 15}
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
    """Of one call. ``streams``: whether it is for methods that stream; None: for any. ``system``: whose it is."""

    streams: ClassVar[bool | None]
    in_pieces: ClassVar[bool]
    """Whether an answer of one message is sent like one of many."""
    more_headers: ClassVar[Sequence[Header]]
    """Of an answer that is sent in pieces."""
    system: ClassVar[System]
    content_type: str

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None: ...

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        """What the client sent, as serialized messages. Raises ``INVALID_REQUEST``."""

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

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None:
        self._codec = codec
        self._method = method
        self.content_type = content_type

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        decode, kind = self._codec.decode, self._method.request
        return [decode(message, kind) for message in opened(body)]

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
    more_headers: ClassVar[Sequence[Header]] = ((b"grpc-accept-encoding", b"gzip, deflate"),)

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        decode, kind = self._codec.decode, self._method.request
        wbits = _WBITS.get(fields.get(b"grpc-encoding", b""))
        return [decode(message, kind) for message in opened(body, wbits)]

    def end(self, status: Status) -> bytes:
        return b""

    def trailers(self, status: Status) -> Sequence[Header]:
        return status_fields(status)


class GrpcWebText(GrpcWeb):
    """The same in base64, for clients that can only read text."""

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        try:
            # Each piece that the client encoded may have its own padding.
            pieces = [body[at : at + 4] for at in range(0, len(body), 4)]
            whole = b64decode(body, validate=True) if b"=" not in body[:-2] else None
            data = whole if whole is not None else b"".join(map(_decoded_four, pieces))
        except NotBase64:
            raise HeadraceError(Code.INVALID_REQUEST, "The body is not base64.") from None
        return super().messages(data, fields)

    def message(self, message: bytes) -> bytes:
        return b64encode(super().message(message))

    def end(self, status: Status) -> bytes:
        return b64encode(super().end(status))


class ConnectStream(GrpcWeb):
    """Envelopes too; the last says in JSON how it ended."""

    streams: ClassVar[bool | None] = True
    system: ClassVar = _CONNECT

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        _refuse_compression(fields, b"connect-content-encoding")
        return super().messages(body, fields)

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

    def __init__(self, codec: Codec, method: Method, content_type: str) -> None:
        self._codec = codec
        self._method = method
        self.content_type = content_type

    def messages(self, body: bytes, fields: Mapping[bytes, bytes]) -> list[bytes]:
        _refuse_compression(fields, b"content-encoding")
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


def opened(body: bytes, wbits: int | None = None) -> list[bytes]:
    """The messages of a body of envelopes. ``wbits``: how they may be compressed, as zlib says it. Raises
    ``INVALID_REQUEST`` and, for what is compressed otherwise, ``METHOD_NOT_ALLOWED`` (gRPC's UNIMPLEMENTED)."""
    found = []
    at = 0
    while at < len(body):
        end = at + HEAD_BYTES + int.from_bytes(body[at + 1 : at + HEAD_BYTES], "big")
        if len(body) - at < HEAD_BYTES or end > len(body):
            raise HeadraceError(Code.INVALID_REQUEST, "The body ends within a message.")
        flags, message = body[at], body[at + HEAD_BYTES : end]
        if flags & _COMPRESSED:
            if wbits is None:
                raise _no_compression()
            message = _inflated(message, wbits)
        if not flags & (_TRAILERS | _CONNECT_END):
            found.append(message)
        at = end
    return found


def _inflated(message: bytes, wbits: int) -> bytes:
    decompress = zlib.decompressobj(wbits)
    try:
        data = decompress.decompress(message, INFLATED_BYTES)
    except zlib.error:
        raise HeadraceError(Code.INVALID_REQUEST, "A message cannot be decompressed.") from None
    if decompress.unconsumed_tail:
        said = f"A message is longer than {INFLATED_BYTES} bytes when it is decompressed."
        raise HeadraceError(Code.BODY_TOO_LARGE, said)
    return data


def _decoded_four(piece: bytes) -> bytes:
    return b64decode(piece, validate=True)


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


def _refuse_compression(fields: Mapping[bytes, bytes], name: bytes) -> None:
    if fields.get(name, b"identity").lower() != b"identity":
        raise _no_compression()


def _no_compression() -> HeadraceError:
    return HeadraceError(Code.METHOD_NOT_ALLOWED, "Compressed messages are not taken here.")
