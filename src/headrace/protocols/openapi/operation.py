"""One operation, and what many of them have."""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace.protocols.anthropic_errors import AnthropicError
from headrace.protocols.errors import ErrorAnswer

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
MODEL = "smollm2-135m"
MESSAGES: list[Json] = [{"role": "user", "content": "Why is the sky blue?"}]


class Operation(NamedTuple):
    """``body``, ``answer``: the types; a list of one type is an array, bytes are an upload or what is in a file.
    ``errors``: statuses beside 500, each with an ``error``."""

    method: str
    path: str
    summary: str
    answer: Any
    body: Any = None
    streams: bool = False
    parameters: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    error: type[ErrorAnswer | AnthropicError] = ErrorAnswer


COMPUTE = (400, 401, 403, 404, 406, 408, 410, 413, 415, 422, 429, 499, 502, 503, 504)
TOKENS = (400, 401, 404, 406, 413, 415, 502, 504)
FIND = (400, 401, 404, 410, 503)
