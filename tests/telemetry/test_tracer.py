from __future__ import annotations

from headrace.domain.trace import Trace, read_trace
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.sampling import Sampler
from headrace.telemetry.span import Span
from headrace.telemetry.tracer import Tracer


class Kept:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)


def tracer(sampler: str, ratio: str = "", kept: Kept | None = None) -> Tracer:
    return Tracer(kept or Kept(), Sampler.named(sampler, ratio), Metrics())


def told(line: bytes) -> Trace:
    name, value = line.decode().split(": ")
    trace = read_trace(value)
    assert (name, value[-2:]) == ("traceparent", "\r\n")
    assert trace is not None
    return trace


def test_a_share_of_what_begins_here_is_recorded() -> None:
    followed = [tracer("traceidratio", "0.5").follow(None) for _ in range(400)]
    recorded = [trace for trace in followed if trace is not None]
    assert 120 < len(recorded) < 280
    assert all(trace.sampled and read_trace(trace.traceparent) == trace for trace in recorded)
    assert len({trace.trace_id for trace in recorded}) == len(recorded)


def test_an_engine_is_told_of_a_trace_that_nobody_records_and_each_time_of_another() -> None:
    never = tracer("always_off")
    assert never.follow(None) is None
    first, second = told(never.unrecorded()), told(never.unrecorded())
    assert not first.sampled
    assert first.trace_id != second.trace_id


def test_baggage_without_a_trace_comes_along() -> None:
    said = read_trace(None, "", "user=7")
    assert said is not None
    for sampler, sampled in (("always_on", True), ("always_off", False)):
        followed = tracer(sampler).follow(said)
        assert followed is not None
        assert (followed.sampled, followed.baggage) == (sampled, "user=7")
        assert read_trace(followed.traceparent, "", "user=7") == followed


def test_a_request_that_ends_leaves_another_alone_that_chose_the_same_id() -> None:
    kept = Kept()
    always = tracer("always_on", kept=kept)
    first, second = (always.follow(None) for _ in range(2))
    assert first is not None
    assert second is not None
    ended = always.request(first, None, "mine", "GET /", {})
    always.request(second, None, "mine", "GET /", {})
    ended.end({})
    assert always.ids_of("", "mine") == second.ids
    always.close()
    assert [span.trace for span in kept.spans] == [first.trace_id, second.trace_id]
