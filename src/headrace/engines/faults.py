"""What an upstream's error means for our client: its status, headers and body become one of our codes.

The upstream's own words are kept, since they say what is wrong with the request. A refused key is
never the client's mistake: the key is this server's.
"""

from __future__ import annotations

import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.response import Headers, lower

MAX_MESSAGE_CHARS = 2000
MAX_ERROR_BYTES = 64 * 1024
"""What is read of an error's body."""

_CONTEXT_TYPES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_CONTEXT_WORDS = (
    "maximum context length",
    "longer than the model's context",
    "exceeds the context",
)
_FULL_WORDS = ("overloaded", "queue is full", "too many requests", "at capacity")
"""In a 503 of one that serves: SGLang, TGI and gateways have a queue that may be full. Anthropic has 529 for it."""
_BY_STATUS = {
    401: Code.ENGINE_UNAVAILABLE,
    402: Code.ENGINE_UNAVAILABLE,
    403: Code.ENGINE_UNAVAILABLE,
    404: Code.MODEL_NOT_FOUND,
    408: Code.ENGINE_TIMEOUT,
    413: Code.BODY_TOO_LARGE,
    422: Code.UNPROCESSABLE,
    429: Code.RATE_LIMITED,
    501: Code.UNSUPPORTED,
    503: Code.ENGINE_UNAVAILABLE,
    504: Code.ENGINE_TIMEOUT,
    529: Code.QUEUE_FULL,
}


class Fault(msgspec.Struct, frozen=True):
    """An error as upstreams word it, whichever of their forms they chose."""

    message: str
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int = 0

    @classmethod
    def of(cls, value: Any) -> Fault:
        """From ``{"message", "type", "code", "param"}``, a text, or anything else."""
        if not isinstance(value, dict):
            return cls(str(value)[:MAX_MESSAGE_CHARS])
        code = value.get("code")
        param = value.get("param")
        return cls(
            str(value.get("message") or value)[:MAX_MESSAGE_CHARS],
            str(value.get("type") or ""),
            str(code or ""),
            param if isinstance(param, str) else None,
            code if isinstance(code, int) and 400 <= code < 600 else 0,
        )


def refused(status: int, headers: Headers, body: bytes) -> HeadraceError:
    """The error for an answer whose status is not 200."""
    fault = _fault_of(body) or Fault(f"The engine answered with status {status}.")
    return _error(fault, status, retry_after_s(headers))


def broken_off(value: Any) -> HeadraceError:
    """The error for an ``error`` object in the middle of a stream."""
    fault = Fault.of(value)
    return _error(fault, fault.status or 500, None)


DIGITS = 15
"""Of a number of seconds; more are no number that fits, and no less than for ever."""


def retry_after_s(headers: Headers) -> float | None:
    """Seconds until then, by ``retry-after-ms`` or ``retry-after``, which may be a date (RFC 9110, 10.2.3); None
    without them."""
    named = lower(headers)
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = named.get(name, b"")
        if value.isdigit():
            return int(value[:DIGITS]) * unit_s
    until = _date(named.get(b"retry-after"))
    if until is None:
        return None
    now = _date(named.get(b"date"))  # by its own clock, where it says what that shows
    return max(until - (time.time() if now is None else now), 0.0)


def _date(value: bytes | None) -> float | None:
    """Unix seconds of an HTTP date."""
    parts = None if value is None else parsedate_tz(value.decode("latin-1"))
    try:
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None


def _fault_of(body: bytes) -> Fault | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()
        return Fault(text[:MAX_MESSAGE_CHARS]) if text and not text.startswith("<") else None
    if not isinstance(value, dict):
        return Fault.of(value)
    return Fault.of(value.get("error") or value.get("detail") or value)


def _error(fault: Fault, status: int, retry_after: float | None) -> HeadraceError:
    return HeadraceError(
        _code(fault, status), fault.message, param=fault.param, retry_after_s=retry_after
    )


def _code(fault: Fault, status: int) -> Code:
    if _CONTEXT_TYPES & {fault.type, fault.code}:
        return Code.CONTEXT_LENGTH
    if status == 400 and any(words in fault.message.lower() for words in _CONTEXT_WORDS):
        return Code.CONTEXT_LENGTH
    if status == 503 and any(words in fault.message.lower() for words in _FULL_WORDS):
        return Code.QUEUE_FULL
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return Code.INVALID_REQUEST if 400 <= status < 500 else Code.ENGINE_FAILED
