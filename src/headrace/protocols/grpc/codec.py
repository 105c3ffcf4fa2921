"""The two forms of a message: as protobuf has it, and as JSON (https://protobuf.dev/programming-guides/json/)."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.message import Message

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.body import decode_any

MAX_VALUES = 64 * 1024
"""Values in a body of JSON, which is read in Python: so many take a third of a second, for which everybody waits."""


class Codec(Protocol):
    """Between what is on the wire and the serialized message, which is what everybody else has."""

    def decode(self, data: bytes, kind: type[Message]) -> bytes:
        """Raises ``INVALID_REQUEST``, ``INVALID_JSON`` and ``BODY_TOO_LARGE``."""

    def encode(self, message: bytes, kind: type[Message]) -> bytes: ...


class Binary:
    def decode(self, data: bytes, kind: type[Message]) -> bytes:
        return data

    def encode(self, message: bytes, kind: type[Message]) -> bytes:
        return message


class Json:
    def decode(self, data: bytes, kind: type[Message]) -> bytes:
        if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
            _check_values(data)
        try:
            return Parse(data, kind()).SerializeToString()
        except (ParseError, UnicodeDecodeError, RecursionError) as complaint:
            name = kind.DESCRIPTOR.full_name
            raise HeadraceError(
                Code.INVALID_REQUEST, f"The body is no {name}: {complaint}."
            ) from None

    def encode(self, message: bytes, kind: type[Message]) -> bytes:
        made = kind()
        made.ParseFromString(message)
        return MessageToJson(made, indent=None).encode()


def _check_values(data: bytes) -> None:
    """For a body that may have too many values: each is behind one of the signs that were counted, but texts have
    commas, too."""
    values, rest = 0, [decode_any(data)]
    while rest:
        item = rest.pop()
        if isinstance(item, dict | list):
            values += len(item)
            if values > MAX_VALUES:
                said = f"The body has more than {MAX_VALUES} values in it."
                raise HeadraceError(Code.BODY_TOO_LARGE, said)
            rest.extend(item.values() if isinstance(item, dict) else item)


CODECS: dict[str, Codec] = {"proto": Binary(), "json": Json()}
