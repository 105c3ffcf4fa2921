"""Bodies into typed values: one strict msgspec decode, and its complaints in words a client can use."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.call import Call

T = TypeVar("T", bound=msgspec.Struct)
Unknown = dict[str, Any]

MAX_DEPTH = 64
"""Levels of a free-form value (a JSON schema, a tool call)."""

MAX_VALUES = 16 * 1024
"""Values in one. They are looked at one by one, and everybody waits for that."""

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"Object missing required field `(.*)`")
_AT = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")


def check_json_body(call: Call) -> None:
    """Raise ``UNSUPPORTED_MEDIA_TYPE``, ``UNSUPPORTED_ENCODING`` or ``INVALID_JSON`` if the body cannot be JSON;
    what the head says is remembered."""
    terms = call.terms
    if not terms.sends_json:
        # Scripts leave it out. Of a page, which says its origin, that is a request for which its browser does not ask
        # first: any site could have its visitors' own servers compute.
        unsaid = b"" if b"origin" in terms.fields else b"application/json"
        content_type = terms.fields.get(b"content-type", unsaid)
        if content_type.partition(b";")[0].strip().lower() != b"application/json":
            raise HeadraceError(
                Code.UNSUPPORTED_MEDIA_TYPE,
                "The header Content-Type must be application/json, and the body JSON in UTF-8.",
            )
        check_plain(call)
        terms.sends_json = True
    if not call.exchange.body:
        raise HeadraceError(Code.INVALID_JSON, "The body is empty; it must be a JSON value.")


def coding_of(call: Call) -> bytes:
    """How the body is compressed; ``identity``: not at all."""
    return call.terms.fields.get(b"content-encoding", b"identity").strip().lower()


def check_plain(call: Call) -> None:
    """Raise ``UNSUPPORTED_ENCODING`` for a compressed body."""
    if coding_of(call) != b"identity":
        said = "The body must not be compressed (Content-Encoding)."
        raise HeadraceError(Code.UNSUPPORTED_ENCODING, said)


def require_json_body(call: Call) -> bytes:
    """The body of a call. Raises as :func:`check_json_body`."""
    check_json_body(call)
    return call.exchange.body


COMPLAINTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises."""


class Body(Generic[T]):
    """The decoder of one type of body; the type forbids unknown fields."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._known = frozenset(field.encode_name for field in msgspec.structs.fields(kind))
        self.strict = msgspec.json.Decoder(kind).decode
        """Decodes a body that has no other fields. Raises ``COMPLAINTS``."""

    def decode(self, body: bytes) -> tuple[T, Unknown | None]:
        """The body and the fields that its type lacks: an engine may know them. In the usual case, no such
        field, this is one decode. Raises ``INVALID_JSON`` or ``INVALID_REQUEST`` naming the field's path."""
        try:
            return self.strict(body), None
        except COMPLAINTS as complaint:
            return self.tolerate(body, complaint)

    def tolerate(self, body: bytes, complaint: Exception) -> tuple[T, Unknown | None]:
        """What :meth:`decode` does after :attr:`strict` has complained."""
        if not isinstance(complaint, msgspec.ValidationError):
            raise invalid_json(complaint) from None
        if _UNKNOWN_FIELD.fullmatch(str(complaint)) is None:
            raise invalid_request(complaint) from None
        return self.convert(decode_any(body))

    def decode_closed(self, body: bytes) -> T:
        """The same where nobody else knows more fields: an unknown one is refused."""
        decoded, unknown = self.decode(body)
        if unknown:
            raise refuse(next(iter(unknown)), "is not known")
        return decoded

    def convert(self, value: Any) -> tuple[T, Unknown | None]:
        """The same for a value that is decoded already."""
        unknown: Unknown = {}
        if isinstance(value, dict):
            unknown = {
                name: item
                for name, item in value.items()
                if name not in self._known and item is not None
            }
            value = {name: item for name, item in value.items() if name in self._known}
        try:
            return msgspec.convert(value, self._kind), unknown or None
        except msgspec.ValidationError as complaint:
            raise invalid_request(complaint) from None
        except RecursionError as complaint:
            raise invalid_json(complaint) from None


def decode_any(body: bytes) -> Any:
    """Any JSON value. Raises ``INVALID_JSON``."""
    try:
        return msgspec.json.decode(body)
    except COMPLAINTS as complaint:
        raise invalid_json(complaint) from None


def require_plain(value: Any, param: str) -> None:
    """Raise ``INVALID_REQUEST`` if a free-form value could not be stored or sent on: nested deeper than
    ``MAX_DEPTH``, with more than ``MAX_VALUES``, or with an integer beyond 64 bits."""
    rest = [(value, 1)]
    values = 0
    while rest:
        item, depth = rest.pop()
        match item:
            case dict() | list():
                if depth > MAX_DEPTH:
                    raise refuse(param, f"is nested deeper than {MAX_DEPTH} levels")
                values += len(item)
                if values > MAX_VALUES:
                    raise refuse(param, f"has more than {MAX_VALUES} values in it")
                inner = item.values() if isinstance(item, dict) else item
                rest.extend([(entry, depth + 1) for entry in inner])
            case int() if not -(2**63) <= item < 2**64:
                raise refuse(param, "has a number in it that does not fit in 64 bits")


def convert_part(value: dict[str, Any], kind: type[T], path: str) -> T:
    """A part of a body that is at ``path`` and was decoded as any value. A field that is null is as if it
    were not there. Raises ``INVALID_REQUEST`` naming the field's path."""
    require_plain(value, path)
    try:
        return msgspec.convert({name: one for name, one in value.items() if one is not None}, kind)
    except msgspec.ValidationError as complaint:
        inner, said = _where_and_what(complaint)
        raise refuse(f"{path}.{inner}" if inner else path, said) from None


def invalid_request(complaint: msgspec.ValidationError) -> HeadraceError:
    """msgspec's complaint with the path as clients write it: ``messages[0].role``."""
    path, said = _where_and_what(complaint)
    if not path:
        return HeadraceError(Code.INVALID_REQUEST, f"The body {said}.")
    return refuse(path, said)


def _where_and_what(complaint: msgspec.ValidationError) -> tuple[str, str]:
    text = str(complaint)
    at = _AT.search(text)
    path = at.group(1) if at else ""
    said = _AT.sub("", text)
    for pattern, words in ((_MISSING_FIELD, "is required"), (_UNKNOWN_FIELD, "is not known")):
        field = pattern.fullmatch(said)
        if field:
            return (f"{path}.{field.group(1)}" if path else field.group(1)), words
    return path, f"is not valid: {said[0].lower()}{said[1:]}"


def refuse(param: str, said: str, code: Code = Code.INVALID_REQUEST) -> HeadraceError:
    """The error about one field: "`param` said."."""
    return HeadraceError(code, f"`{param}` {said}.", param=param)


def invalid_json(complaint: Exception) -> HeadraceError:
    """The error about a body that no decoder understands."""
    match complaint:
        case UnicodeDecodeError():
            said = "The body is not UTF-8."
        case RecursionError():
            said = "The body is nested too deeply."
        case _:
            said = f"The body is not JSON: {complaint}."
    return HeadraceError(Code.INVALID_JSON, said)
