"""What traces know of a generation from its beginning, and the span of one that has nothing else left."""

from __future__ import annotations

from typing import Protocol

from headrace.domain.event import Error
from headrace.domain.request import Caller, Request
from headrace.domain.trace import Trace
from headrace.telemetry.metrics import OPERATIONS
from headrace.telemetry.span import MAX_MESSAGE, Span


class Begun(Protocol):
    """What is known of a generation from its beginning. ``created``: float Unix seconds."""

    @property
    def id(self) -> str: ...

    @property
    def created(self) -> float: ...

    @property
    def caller(self) -> Caller: ...

    @property
    def request(self) -> Request: ...


def cut_off(begun: Begun, trace: Trace, end: Error, span_id: int) -> Span:
    """The span of a generation whose process died, and which nobody goes on with. What else was recorded of it
    died too."""
    operation = OPERATIONS[begun.request.kind]
    return Span(
        name=f"{operation} {begun.request.model}",
        kind="internal",
        trace=trace.trace_id,
        id=span_id,
        parent=trace.span_id,
        tracestate=trace.tracestate,
        start=int(begun.created * 1e9),
        end=int(end.timestamp * 1e9),
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": begun.request.model,
            "gen_ai.response.id": begun.id,
            "headrace.generation.id": begun.id,
            "headrace.request.id": begun.caller.request_id,
            "headrace.tenant": begun.caller.tenant,
            "error.type": end.code,
        },
        error=end.message[:MAX_MESSAGE],
    )
