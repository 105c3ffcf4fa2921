"""How a :class:`HeadraceError` is said in HTTP: before the stream as a response, inside it as a last
event; the same code and message in both. https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from headrace.domain.allowance import Allowance
from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.domain.event import Error
from headrace.protocols.allowances import Named, openai_allowance
from headrace.protocols.port import Generation

Header = tuple[bytes, bytes]

_RETRY = (b"x-should-retry", b"true")
_NO_RETRY = (b"x-should-retry", b"false")
_BEARER = (b"www-authenticate", b'Bearer realm="headrace"')
_encode = msgspec.json.Encoder().encode


class ErrorBody(msgspec.Struct, frozen=True, gc=False):
    """What went wrong. ``param``: the path of the offending field. ``code``: a value that never changes."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct, frozen=True, gc=False):
    """The body of every answer that is an error."""

    error: ErrorBody


def code_of(event: Error) -> Code:
    """The code of a log's ``error`` event; ``INTERNAL`` for one that this version does not know."""
    try:
        return Code(event.code)
    except ValueError:
        return Code.INTERNAL


def from_event(event: Error) -> HeadraceError:
    """The error that a log ended with."""
    return HeadraceError(code_of(event), event.message, retry_after_s=event.retry_after_s)


def error_object(event: Error) -> ErrorBody:
    """The OpenAI error object of a log's ``error`` event, with its code as stored."""
    return ErrorBody(event.message, MEANINGS[code_of(event)].type, None, event.code)


def error_of(error: HeadraceError) -> ErrorBody:
    """The OpenAI error object of an exception."""
    return ErrorBody(error.message, error.meaning.type, error.param, error.code.value)


def error_body(error: HeadraceError) -> bytes:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return _encode(ErrorAnswer(error_of(error)))


class Manner(Protocol):
    """How an API tells what went wrong, and what its caller has left. ``id_header``: where its clients look for the
    request's id, beside ``x-request-id``."""

    @property
    def id_header(self) -> bytes | None: ...

    def failure(self, error: HeadraceError, request_id: str) -> tuple[int, bytes]:
        """The status and the body of an answer that is this error."""

    def allowance(self, allowance: Allowance) -> list[Named]:
        """The headers that say what is left; their values have no line breaks."""


class OpenAIManner:
    """OpenAI's, and of everything here that has no other."""

    id_header: bytes | None = None

    def failure(self, error: HeadraceError, request_id: str) -> tuple[int, bytes]:
        return error.meaning.http, error_body(error)

    def allowance(self, allowance: Allowance) -> list[Named]:
        return openai_allowance(allowance)


OPENAI: Manner = OpenAIManner()


def error_headers(error: HeadraceError) -> list[Header]:
    """What the OpenAI SDKs obey, in their order: ``x-should-retry``, ``retry-after-ms``, ``retry-after``; and how to
    say who one is, which every 401 must tell (RFC 9110 §15.5.2)."""
    headers = [_RETRY if error.meaning.retryable else _NO_RETRY]
    if error.retry_after_s is not None:
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after_s * 1000)))
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
    if error.code is Code.INVALID_API_KEY:
        headers.append(_BEARER)
    return headers


def named(generation: Generation) -> list[Header]:
    """The header by which an answer names its generation."""
    return [(b"x-generation-id", generation.id.encode())]


_REFUSED = {
    413: Code.BODY_TOO_LARGE,
    500: Code.INTERNAL,
    503: Code.TOO_MANY_CONNECTIONS,
}
"""What the front's own statuses are; whatever else it refuses was not understood."""


def refusal(status: int, message: str) -> HeadraceError:
    """What the front itself refuses (a head too long, a body too large, …), under its status."""
    return HeadraceError(_REFUSED.get(status, Code.INVALID_REQUEST), message)
