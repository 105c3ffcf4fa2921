"""Every error of Headrace, once: its code and what that code means on each wire.

Only ``protocols/`` (and the gRPC front, later) translate a code into a status; everything else
raises :class:`HeadraceError` with a code and a message that says who can fix it.
gRPC numbers: https://grpc.io/docs/guides/status-codes/. HTTP: RFC 9110, and 499 as nginx logs it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """What went wrong. The value is what clients see as ``code``."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    UNPROCESSABLE = "unprocessable"
    UNSUPPORTED = "unsupported_option"
    CONTEXT_LENGTH = "context_length_exceeded"
    BODY_TOO_LARGE = "body_too_large"
    INVALID_API_KEY = "invalid_api_key"
    FORBIDDEN = "forbidden"
    HOOK_REFUSED = "refused"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    GENERATION_NOT_FOUND = "generation_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    CONFLICT = "conflict"
    CURSOR_GONE = "cursor_gone"
    CURSOR_AHEAD = "cursor_ahead"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    MODEL_LOADING = "model_loading"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    SHUTTING_DOWN = "shutting_down"
    ENGINE_FAILED = "engine_failed"
    ENGINE_TIMEOUT = "engine_timeout"
    GENERATION_TIMEOUT = "generation_timeout"
    CANCELLED = "cancelled"
    CLIENT_GONE = "client_gone"
    INTERRUPTED = "interrupted"
    NOT_CONTINUABLE = "not_continuable"
    HOOK_FAILED = "hook_failed"
    STORE_FAILED = "store_failed"
    INTERNAL = "internal"


class Meaning(NamedTuple):
    """One row of the table: the same code on every wire."""

    http: int
    grpc: int
    type: str
    retryable: bool
    log_level: str


_INVALID = "invalid_request_error"
_OVERLOADED = "overloaded_error"
_API = "api_error"

MEANINGS: dict[Code, Meaning] = {
    Code.INVALID_REQUEST: Meaning(400, 3, _INVALID, False, "info"),
    Code.INVALID_JSON: Meaning(400, 3, _INVALID, False, "info"),
    Code.UNPROCESSABLE: Meaning(422, 3, _INVALID, False, "info"),
    Code.UNSUPPORTED: Meaning(400, 3, _INVALID, False, "info"),
    Code.CONTEXT_LENGTH: Meaning(400, 3, _INVALID, False, "info"),
    Code.BODY_TOO_LARGE: Meaning(413, 8, _INVALID, False, "info"),
    Code.INVALID_API_KEY: Meaning(401, 16, "authentication_error", False, "info"),
    Code.FORBIDDEN: Meaning(403, 7, "permission_error", False, "info"),
    Code.HOOK_REFUSED: Meaning(403, 7, "permission_error", False, "info"),
    Code.NOT_FOUND: Meaning(404, 5, "not_found_error", False, "info"),
    Code.MODEL_NOT_FOUND: Meaning(404, 5, "not_found_error", False, "info"),
    Code.GENERATION_NOT_FOUND: Meaning(404, 5, "not_found_error", False, "info"),
    Code.METHOD_NOT_ALLOWED: Meaning(405, 12, _INVALID, False, "info"),
    Code.NOT_ACCEPTABLE: Meaning(406, 3, _INVALID, False, "info"),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(415, 3, _INVALID, False, "info"),
    Code.UNSUPPORTED_ENCODING: Meaning(415, 12, _INVALID, False, "info"),
    Code.CONFLICT: Meaning(409, 10, _INVALID, False, "info"),
    Code.CURSOR_GONE: Meaning(410, 11, _INVALID, False, "info"),
    Code.CURSOR_AHEAD: Meaning(400, 11, _INVALID, False, "info"),
    Code.RATE_LIMITED: Meaning(429, 8, "rate_limit_error", True, "info"),
    Code.QUEUE_FULL: Meaning(503, 14, _OVERLOADED, True, "warning"),
    Code.QUEUE_TIMEOUT: Meaning(408, 4, _OVERLOADED, True, "warning"),
    Code.TOO_MANY_CONNECTIONS: Meaning(503, 14, _OVERLOADED, True, "warning"),
    Code.MODEL_LOADING: Meaning(503, 14, _OVERLOADED, True, "info"),
    Code.ENGINE_UNAVAILABLE: Meaning(503, 14, _API, True, "error"),
    Code.SHUTTING_DOWN: Meaning(503, 14, _OVERLOADED, True, "info"),
    Code.ENGINE_FAILED: Meaning(502, 14, _API, True, "error"),
    Code.ENGINE_TIMEOUT: Meaning(504, 4, _API, True, "error"),
    Code.GENERATION_TIMEOUT: Meaning(504, 4, _API, False, "warning"),
    Code.CANCELLED: Meaning(499, 1, _INVALID, False, "info"),
    Code.CLIENT_GONE: Meaning(499, 1, _INVALID, False, "info"),
    Code.INTERRUPTED: Meaning(503, 14, _API, True, "warning"),
    Code.NOT_CONTINUABLE: Meaning(502, 9, _API, True, "warning"),
    Code.HOOK_FAILED: Meaning(500, 13, _API, False, "error"),
    Code.STORE_FAILED: Meaning(500, 13, _API, True, "error"),
    Code.INTERNAL: Meaning(500, 13, _API, False, "error"),
}


class HeadraceError(Exception):
    """The one error class. ``message`` is shown to clients; it says what is wrong and who can fix it.

    ``param`` is the path of the offending field (``messages[0].role``), ``retry_after_s`` how long a
    client should wait before it tries again (seconds), where that is known.
    """

    __slots__ = ("code", "message", "param", "retry_after_s")

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.code]
