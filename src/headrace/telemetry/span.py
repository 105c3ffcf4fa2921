"""A span: something that took time in a trace. Made when it is over, from what was noted meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

Kind = Literal["server", "internal", "client"]
MAX_MESSAGE = 512
"""Characters of an error's message that a span keeps."""


class SpanEvent(msgspec.Struct, frozen=True):
    """Something that happened at a moment of a span. ``at``: Unix nanoseconds."""

    name: str
    at: int
    attributes: dict[str, Any] = {}


class Link(NamedTuple):
    """A span of another trace that has to do with this one: by this generation."""

    trace: int
    span: int
    generation: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """``trace``, ``id``, ``parent``: the numbers of the trace, the span and the span around it (0: none).
    ``remote``: that one is another program's. ``start``, ``end``: Unix nanoseconds. ``error``: what went wrong
    by our fault or an engine's, in words; None: nothing."""

    name: str
    kind: Kind
    trace: int
    id: int
    parent: int
    remote: bool = False
    tracestate: str = ""
    start: int
    end: int
    attributes: dict[str, Any]
    events: Sequence[SpanEvent] = ()
    links: Sequence[Link] = ()
    error: str | None = None


class Spans(Protocol):
    """Where spans go."""

    def put(self, span: Span) -> None:
        """Take one; never waits. What cannot be kept is dropped."""
