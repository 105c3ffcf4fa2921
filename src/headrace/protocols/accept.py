"""Which form of an answer a client wants: the ``Accept`` header (RFC 9110 §12.5.1), q-values obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from headrace.domain.errors import Code, HeadraceError

StreamForm = Literal["sse", "ndjson"]

SSE_TYPE = "text/event-stream"
NDJSON_TYPE = "application/x-ndjson"
JSON_TYPE = "application/json"
MAX_LENGTH = 1024
"""Characters of an ``Accept`` header that are read; browsers send about 150."""

_STREAM_FORMS: tuple[tuple[StreamForm, tuple[str, ...]], ...] = (
    ("sse", (SSE_TYPE,)),
    ("ndjson", (NDJSON_TYPE, "application/ndjson", "application/jsonl")),
)


def stream_form(accept: str | None) -> StreamForm:
    """The form of a stream. Raises ``NOT_ACCEPTABLE``.

    ``application/json`` alone means SSE: the OpenAI SDKs send it with every request and read SSE.
    """
    if accept is None or accept in ("*/*", JSON_TYPE, SSE_TYPE):
        return "sse"
    named = ranges(accept)
    qualities = [
        (max(_quality(named, name) for name in names), form) for form, names in _STREAM_FORMS
    ]
    best, form = max(qualities, key=lambda entry: entry[0])
    if best > 0:
        return form
    if _quality(named, JSON_TYPE) > 0:
        return "sse"
    raise _refusal(f"{SSE_TYPE} or {NDJSON_TYPE}")


def require_json(accept: str | None) -> None:
    """Raise ``NOT_ACCEPTABLE`` if the client does not take JSON."""
    if accept is None or accept in ("*/*", JSON_TYPE):
        return
    if _quality(ranges(accept), JSON_TYPE) <= 0:
        raise _refusal(JSON_TYPE)


def _refusal(offer: str) -> HeadraceError:
    return HeadraceError(
        Code.NOT_ACCEPTABLE,
        f"This answer is {offer}; the Accept header allows neither."
        if " or " in offer
        else f"This answer is {offer}, which the Accept header does not allow.",
    )


def ranges(accept: str) -> list[tuple[str, float]]:
    """What a header of this kind names, in lower case, and how much it is liked: 0 (not at all) to 1."""
    entries = (entry.split(";") for entry in accept[:MAX_LENGTH].lower().split(","))
    return [(name.strip(), _q(parameters)) for name, *parameters in entries if name.strip()]


def _q(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _quality(named: Sequence[tuple[str, float]], name: str) -> float:
    """The q-value of the most specific range that covers this type; 0 if none does."""
    for covering in (name, name.partition("/")[0] + "/*", "*/*"):
        found = [quality for range_, quality in named if range_ == covering]
        if found:
            return max(found)
    return 0.0
