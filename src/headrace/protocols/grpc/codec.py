"""The two forms of a message: as protobuf has it, and as JSON (https://protobuf.dev/programming-guides/json/)."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.message import Message

from headrace.domain.errors import Code, HeadraceError


class Codec(Protocol):
    """Between what is on the wire and the serialized message, which is what everybody else has."""

    def decode(self, data: bytes, kind: type[Message]) -> bytes:
        """Raises ``INVALID_REQUEST``."""

    def encode(self, message: bytes, kind: type[Message]) -> bytes: ...


class Binary:
    def decode(self, data: bytes, kind: type[Message]) -> bytes:
        return data

    def encode(self, message: bytes, kind: type[Message]) -> bytes:
        return message


class Json:
    def decode(self, data: bytes, kind: type[Message]) -> bytes:
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


CODECS: dict[str, Codec] = {"proto": Binary(), "json": Json()}
