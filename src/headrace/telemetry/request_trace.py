"""The span of one request that is recorded, over whatever protocol it came."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from headrace.domain.trace import Trace
from headrace.telemetry.begun import Begun
from headrace.telemetry.span import MAX_MESSAGE, Link, Span

Attributes = Mapping[str, str | int]


class Recorder(Protocol):
    """Where requests' spans go."""

    def link_to(self, generation: Begun) -> Link | None:
        """Where a generation is recorded, if it is."""

    def part(self, span: Span) -> None:
        """Take the span of a part of one."""

    def new_id(self) -> int:
        """Of a span: random, never 0."""

    def over(self, request: RequestTrace, span: Span) -> None:
        """Take the span of a request that has ended."""


class RequestTrace:
    """Implements the span of ``protocols/``."""

    def __init__(
        self,
        recorder: Recorder,
        trace: Trace,
        said: Trace | None,
        request_id: str,
        name: str,
        attributes: Attributes,
    ) -> None:
        """``said``: the trace of its client."""
        self.trace_id = trace.trace_id
        self.span_id = trace.span_id
        self.request_id = request_id
        self._recorder: Recorder | None = recorder
        self._name = name
        self._attributes = attributes
        self._tracestate = trace.tracestate
        self._parent = said.span_id if said is not None and said.traceparent else 0
        self._began = time.time_ns()
        self._links: tuple[Link, ...] = ()

    def about(self, generation: Begun) -> None:
        """It is about a generation that another request began."""
        if self._recorder is not None:
            link = self._recorder.link_to(generation)
            self._links += () if link is None else (link,)

    def did(self, name: str, began: int, attributes: Attributes, fault: str | None = None) -> None:
        """A part of it is over, which began at so many Unix nanoseconds."""
        recorder = self._recorder
        if recorder is None:
            return
        span = Span(
            name=name,
            kind="internal",
            trace=self.trace_id,
            id=recorder.new_id(),
            parent=self.span_id,
            tracestate=self._tracestate,
            start=began,
            end=time.time_ns(),
            attributes=dict(attributes),
            error=None if fault is None else fault[:MAX_MESSAGE],
        )
        recorder.part(span)

    def end(self, attributes: Attributes, fault: str | None = None) -> None:
        """It was answered, as ``attributes`` say. ``fault``: what went wrong by our fault or an engine's.
        Idempotent."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        span = Span(
            name=self._name,
            kind="server",
            trace=self.trace_id,
            id=self.span_id,
            parent=self._parent,
            remote=self._parent != 0,
            tracestate=self._tracestate,
            start=self._began,
            end=time.time_ns(),
            attributes={**self._attributes, "headrace.request.id": self.request_id, **attributes},
            links=self._links,
            error=None if fault is None else fault[:MAX_MESSAGE],
        )
        recorder.over(self, span)
