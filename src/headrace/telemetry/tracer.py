"""Which trace a request belongs to, and who records it: requests and generations that are sampled.

What is not sampled costs a random number and a comparison, once, and another number where an engine is told so.
Of what is, spans are made when it is over; nothing here runs for a token but two assignments.
"""

from __future__ import annotations

import random

from headrace.domain.event import Error
from headrace.domain.trace import Trace
from headrace.telemetry.begun import Begun, cut_off
from headrace.telemetry.generation_trace import Generation, GenerationTrace, Place
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.request_trace import Attributes, RequestTrace
from headrace.telemetry.sampling import Sampler
from headrace.telemetry.span import Link, Span, Spans

STOPPED = "server_stopped"
_RECORDED = "00-%016x%016x-%016x-01"
_NOT_RECORDED = "00-%032x-%016x-00"


class Tracer:
    """Implements the tracers of ``protocols/`` and of the service."""

    def __init__(self, spans: Spans, sampler: Sampler, metrics: Metrics) -> None:
        """``metrics``: whose buckets lead to traces."""
        self._spans = spans
        self._metrics = metrics
        self._sampler = sampler
        self._bound = sampler.bound
        self._bits = random.Random().getrandbits
        # A span that nobody records is nobody's parent: one number does for all.
        self._told = b"traceparent: 00-%%032x-%016x-00\r\n" % self.new_id()
        # Bounded by the requests and the generations under way.
        self._requests: dict[str, RequestTrace] = {}
        self._generations: dict[str, GenerationTrace] = {}

    def follow(self, said: Trace | None) -> Trace | None:
        """The trace that a request belongs to: that of its client, or a new one; None for one that begins here
        and is not sampled. A sampled one names the span that is to come as its parent."""
        if said is not None and said.traceparent:
            return self._followed(said)
        # As nearly always, and so without a call: every request that begins a trace passes here.
        low = self._bits(64)
        if low >= self._bound:
            if said is None:
                return None
            traceparent = _NOT_RECORDED % (self._bits(128) or 1, self.new_id())
        else:
            traceparent = _RECORDED % (self._bits(64), low, self.new_id())
        return Trace(traceparent, "", "" if said is None else said.baggage)

    def unrecorded(self) -> bytes:
        """What an engine is told where :meth:`follow` gave None: a trace that is not recorded, so that it does
        not record one either. A header line."""
        return self._told % (self._bits(128) or 1)

    def request(
        self, trace: Trace, said: Trace | None, request_id: str, name: str, attributes: Attributes
    ) -> RequestTrace:
        """A request that came in a sampled trace."""
        request = RequestTrace(self, trace, said, request_id, name, attributes)
        self._requests[request_id] = request
        return request

    def generation(self, generation: Generation, model: str) -> GenerationTrace | None:
        """Record a generation; None if its trace is not sampled. It becomes the generation's meter."""
        trace = generation.caller.trace
        if trace is None or not trace.sampled:
            return None
        place = Place(self._spans, self.new_id, self._generations)
        recorded = GenerationTrace(place, generation, trace, self._metrics.model(model))
        generation.meter = recorded
        self._generations[generation.id] = recorded
        return recorded

    def interrupted(self, begun: Begun, end: Error) -> None:
        """A generation of an earlier process ended now, since nobody goes on with it."""
        trace = begun.caller.trace
        if trace is not None and trace.sampled:
            self._spans.put(cut_off(begun, trace, end, self.new_id()))

    def link_to(self, generation: Begun) -> Link | None:
        """Where a generation is recorded: the span of its own if it is under way, or that of the request that
        began it; None: nowhere."""
        recorded = self._generations.get(generation.id)
        if recorded is not None:
            return Link(recorded.trace_id, recorded.span_id, generation.id)
        trace = generation.caller.trace
        if trace is None or not trace.sampled:
            return None
        return Link(trace.trace_id, trace.span_id, generation.id)

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
        for request in list(self._requests.values()):
            request.end({"error.type": STOPPED})

    def part(self, span: Span) -> None:
        """For a request's span to call: a part of it is over."""
        self._spans.put(span)

    def over(self, request: RequestTrace, span: Span) -> None:
        """For a request's span to call."""
        if self._requests.get(request.request_id) is request:  # clients choose these ids
            del self._requests[request.request_id]
        self._spans.put(span)

    def new_id(self) -> int:
        """Of a span: random, never 0."""
        return self._bits(64) or 1

    def _followed(self, said: Trace) -> Trace:
        sampled = said.sampled
        if not self._sampler.takes(said.trace_id, sampled):
            if not sampled:
                return said
            return Trace(said.traceparent[:53] + "00", said.tracestate, said.baggage)
        traceparent = f"{said.traceparent[:36]}{self.new_id():016x}-01"
        return Trace(traceparent, said.tracestate, said.baggage)
