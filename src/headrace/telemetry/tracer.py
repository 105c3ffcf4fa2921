"""Which trace a request belongs to, and who records it: requests and generations that are sampled.

What is not sampled costs a decision and two random numbers, once. Of what is, spans are made when it is over;
nothing here runs for a token but two assignments.
"""

from __future__ import annotations

import random
import time

from headrace.domain.trace import Trace
from headrace.telemetry.generation_trace import Generation, GenerationTrace, Place
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.sampling import LOW, Sampler
from headrace.telemetry.span import Span, Spans

_TRACEPARENT = "00-%032x-%016x-%02x"


class Tracer:
    """Implements the tracers of ``protocols/`` and of the service."""

    def __init__(self, spans: Spans, sampler: Sampler, metrics: Metrics) -> None:
        """``metrics``: whose buckets lead to traces."""
        self._spans = spans
        self._metrics = metrics
        self._sampler = sampler
        self._bound = sampler.bound
        self._bits = random.Random().getrandbits
        # Bounded by the requests and the generations under way.
        self._requests: dict[str, RequestSpan] = {}
        self._generations: dict[str, GenerationTrace] = {}

    def follow(self, said: Trace | None) -> Trace:
        """The trace that a request belongs to: that of its client, or a new one. A sampled one names the
        span that is to come as its parent."""
        if said is not None and said.traceparent:
            return self._followed(said)
        # As nearly always, and so without a call: every request that begins a trace passes here.
        bits = self._bits
        trace_id = bits(128) or 1
        sampled = trace_id & LOW < self._bound
        traceparent = _TRACEPARENT % (trace_id, bits(64) or 1, sampled)
        return Trace(traceparent) if said is None else Trace(traceparent, "", said.baggage)

    def request(
        self, trace: Trace, said: Trace | None, method: str, route: str, path: str, request_id: str
    ) -> RequestSpan:
        """A request that came in a sampled trace. ``route``: its pattern."""
        span = RequestSpan(self, trace, said)
        span.attributes = {
            "http.request.method": method,
            "http.route": route,
            "url.path": path,
            "headrace.request.id": request_id,
        }
        span.request_id = request_id
        self._requests[request_id] = span
        return span

    def generation(self, generation: Generation, model: str) -> GenerationTrace | None:
        """Record a generation; None if its trace is not sampled. It becomes the generation's meter."""
        trace = generation.caller.trace
        if trace is None or not trace.sampled:
            return None
        place = Place(self._spans, self._new_id, self._generations)
        recorded = GenerationTrace(place, generation, trace, self._metrics.model(model))
        generation.meter = recorded
        self._generations[generation.id] = recorded
        return recorded

    def ids_of(self, generation: str, request_id: str) -> tuple[str, str] | None:
        """Trace id and span id, in hex, of what is being recorded under one of these names."""
        recorded = self._generations.get(generation) or self._requests.get(request_id)
        if recorded is None:
            return None
        return f"{recorded.trace_id:032x}", f"{recorded.span_id:016x}"

    def close(self) -> None:
        """End what is under way: the server stops, and generations that go on do so with the next one."""
        for recorded in list(self._generations.values()):
            recorded.left()
        for span in list(self._requests.values()):
            span.end(0, "server_stopped")

    def over(self, request: RequestSpan, span: Span) -> None:
        """For a request's span to call."""
        self._requests.pop(request.request_id, None)
        self._spans.put(span)

    def _new_id(self) -> int:
        """Of a span: random, never 0."""
        return self._bits(64) or 1

    def _followed(self, said: Trace) -> Trace:
        sampled = said.sampled
        if not self._sampler.takes(said.trace_id, sampled):
            if not sampled:
                return said
            return Trace(said.traceparent[:53] + "00", said.tracestate, said.baggage)
        traceparent = f"{said.traceparent[:36]}{self._new_id():016x}-01"
        return Trace(traceparent, said.tracestate, said.baggage)


class RequestSpan:
    """The span of one HTTP request."""

    def __init__(self, tracer: Tracer, trace: Trace, said: Trace | None) -> None:
        self.trace_id = trace.trace_id
        self.span_id = trace.span_id
        self.request_id = ""
        self.attributes: dict[str, str | int] = {}
        self._tracestate = trace.tracestate
        self._parent = said.span_id if said is not None and said.traceparent else 0
        self._began = time.time_ns()
        self._tracer: Tracer | None = tracer

    def end(self, status: int, error: str = "") -> None:
        """It was answered. ``error``: what went wrong where the status does not say it. Idempotent."""
        tracer, self._tracer = self._tracer, None
        if tracer is None:
            return
        attributes = self.attributes
        if status:
            attributes["http.response.status_code"] = status
        if error or status >= 500:
            attributes["error.type"] = error or str(status)
        span = Span(
            name=f"{attributes['http.request.method']} {attributes['http.route']}",
            kind="server",
            trace=self.trace_id,
            id=self.span_id,
            parent=self._parent,
            remote=self._parent != 0,
            tracestate=self._tracestate,
            start=self._began,
            end=time.time_ns(),
            attributes=attributes,
            error=f"HTTP {status}" if status >= 500 else None,
        )
        tracer.over(self, span)
