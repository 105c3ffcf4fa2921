"""Messages of ``inference`` with their raw contents beside them: as protobuf has a field of bytes on the wire
(https://protobuf.dev/programming-guides/encoding/), without the copies of each tensor that its library makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from headrace.protocols.grpc import open_inference_pb2 as pb

_RAW_INPUT = 7
_RAW_OUTPUT = 6
_RESPONSE = 2
"""``ModelStreamInferResponse.infer_response``."""
_BYTES = 2
"""The wire type of what has a length."""


class RawRequest(NamedTuple):
    """``message``: without ``raw_input_contents``, which are ``raw``: views of what came."""

    message: pb.ModelInferRequest
    raw: Sequence[memoryview]


class RawResponse(NamedTuple):
    """``message``: without ``raw_output_contents``, which are ``raw``."""

    message: pb.ModelInferResponse
    raw: Sequence[memoryview]

    def SerializeToString(self) -> bytes:
        return b"".join(self._pieces())

    def streamed(self) -> bytes:
        """As the ``infer_response`` of a serialized ``ModelStreamInferResponse``."""
        pieces = self._pieces()
        size = sum(map(len, pieces))
        return b"".join([_tag(_RESPONSE), _varint(size), *pieces])

    def _pieces(self) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = [self.message.SerializeToString()]
        for data in self.raw:
            pieces += (_tag(_RAW_OUTPUT), _varint(len(data)), data)
        return pieces


def read_request(data: bytes) -> RawRequest:
    """Raises ``DecodeError``."""
    whole = memoryview(data)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    at = 0
    while at < len(whole):
        key, begin = _read_varint(whole, at)
        if key & 7 != _BYTES:
            raise DecodeError("no field of a ModelInferRequest")
        size, begin = _read_varint(whole, begin)
        end = begin + size
        if end > len(whole):
            raise DecodeError("truncated")
        if key >> 3 == _RAW_INPUT:
            raw.append(whole[begin:end])
        else:
            rest.append(whole[at:end])
        at = end
    message = pb.ModelInferRequest()
    message.ParseFromString(b"".join(rest))
    return RawRequest(message, raw)


def _tag(field: int) -> bytes:
    return bytes((field << 3 | _BYTES,))


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number and where it ends."""
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise DecodeError("no number")
