"""How Anthropic's API says what went wrong: ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.domain.allowance import Allowance
from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.allowances import Named, anthropic_allowance
from headrace.protocols.errors import Manner

_encode = msgspec.json.Encoder().encode

_BY_CODE: dict[Code, tuple[int, str]] = {
    Code.BODY_TOO_LARGE: (413, "request_too_large"),
    Code.REQUEST_TOO_LARGE: (413, "request_too_large"),
    Code.CONFLICT: (409, "conflict_error"),
    Code.QUEUE_TIMEOUT: (529, "overloaded_error"),
    Code.ENGINE_TIMEOUT: (504, "timeout_error"),
    Code.GENERATION_TIMEOUT: (504, "timeout_error"),
}
OVERLOADED = 529
"""What Anthropic answers where others say 503."""


class AnthropicErrorBody(msgspec.Struct, frozen=True, gc=False):
    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True, gc=False):
    """The body of every answer that is an error, and of the ``error`` event."""

    type: Literal["error"]
    error: AnthropicErrorBody
    request_id: str


class AnthropicManner:
    """Implements :class:`headrace.protocols.errors.Manner`."""

    id_header: bytes | None = b"request-id"

    def failure(self, error: HeadraceError, request_id: str) -> tuple[int, bytes]:
        return status_and_type(error)[0], anthropic_error(error, request_id)

    def allowance(self, allowance: Allowance) -> list[Named]:
        return anthropic_allowance(allowance)


ANTHROPIC_MANNER: Manner = AnthropicManner()


def anthropic_error(error: HeadraceError, request_id: str) -> bytes:
    """The error object."""
    body = AnthropicErrorBody(status_and_type(error)[1], error.message)
    return _encode(AnthropicError("error", body, request_id))


def status_and_type(error: HeadraceError) -> tuple[int, str]:
    """The status and the type of an error."""
    meaning = error.meaning
    status = OVERLOADED if meaning.type == "overloaded_error" else meaning.http
    return _BY_CODE.get(error.code, (status, meaning.type))
