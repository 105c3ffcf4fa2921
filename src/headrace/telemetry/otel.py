"""Spans on their way out by OpenTelemetry's SDK. Imported only where they are exported: it costs 0.1 s.

Rule: the event loop never waits here. A span goes into the SDK's bounded queue (``OTEL_BSP_…``), which a thread
empties; a full one drops spans, oldest first.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from functools import lru_cache

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link as OtelLink
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from headrace import __version__
from headrace.telemetry.otel_plan import Plan
from headrace.telemetry.span import Kind, Link, Span

CLOSE_S = 3.0
"""How long the last spans may take at the end."""

_KINDS: Mapping[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("headrace", __version__)
_FINE = Status(StatusCode.UNSET)


class Otel:
    """Implements :class:`headrace.telemetry.span.Spans`."""

    def __init__(self, plan: Plan) -> None:
        """Raises what the SDK raises for an environment that it cannot use."""
        self.resource = resource(plan)
        self._processors: list[SpanProcessor] = [
            BatchSpanProcessor(_exporter(name, plan.traces_protocol)) for name in plan.traces
        ]

    def put(self, span: Span) -> None:
        """Into the queue."""
        readable = _readable(span, self.resource)
        for processor in self._processors:
            processor.on_end(readable)

    def close(self) -> None:
        """Send what is queued; gives up after ``CLOSE_S``. Blocks: not for the event loop's thread."""
        threads = [
            threading.Thread(target=processor.shutdown, name="headrace-otel", daemon=True)
            for processor in self._processors
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CLOSE_S)


def resource(plan: Plan) -> Resource:
    """Who we are, with what ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` say."""
    said = Resource.create()
    if plan.service_name:
        said = said.merge(Resource({"service.name": plan.service_name}))
    ours = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    return Resource(ours).merge(said)


def _exporter(name: str, protocol: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    state = _tracestate(span.tracestate)
    parent = None
    if span.parent:
        parent = SpanContext(span.trace, span.parent, span.remote, _SAMPLED, state)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(span.trace, span.id, False, _SAMPLED, state),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        events=[Event(event.name, event.attributes, event.at) for event in span.events],
        links=[_link(link) for link in span.links],
        kind=_KINDS[span.kind],
        status=_FINE if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=_SCOPE,
    )


def _link(link: Link) -> OtelLink:
    context = SpanContext(link.trace, link.span, True, _SAMPLED)
    return OtelLink(context, {"headrace.generation.id": link.generation})


@lru_cache(64)
def _tracestate(text: str) -> TraceState:
    return TraceState.from_header([text]) if text else TraceState()
