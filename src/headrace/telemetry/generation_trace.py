"""The spans of one generation that is recorded: the generation, its waiting times, its attempts.

It stands in front of the generation's meter, so that it hears of the first token and of the slowest one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.trace import Trace
from headrace.telemetry.begun import Begun
from headrace.telemetry.histogram import Exemplar
from headrace.telemetry.metrics import OPERATIONS, ModelMetrics
from headrace.telemetry.span import MAX_MESSAGE, Kind, Span, SpanEvent, Spans

_SAMPLING = (
    *(("max_tokens", "max_tokens"), ("temperature", "temperature"), ("top_p", "top_p")),
    *(("top_k", "top_k"), ("seed", "seed"), ("presence_penalty", "presence_penalty")),
    ("frequency_penalty", "frequency_penalty"),
)


class Generation(Begun, Protocol):
    """A generation that begins, or goes on after a restart: ``seq`` is above 0 then."""

    seq: int
    meter: Any


class Place(NamedTuple):
    """``spans``: where they go; ``new_id`` makes their ids; ``live``: where those under way are known by their
    generation's id."""

    spans: Spans
    new_id: Callable[[], int]
    live: MutableMapping[str, Any]


class GenerationTrace:
    """Implements ``headrace.tracing.GenerationTrace`` and the generation's meter."""

    def __init__(
        self, place: Place, generation: Generation, trace: Trace, model: ModelMetrics
    ) -> None:
        self.trace_id = trace.trace_id
        self.span_id = place.new_id()
        self._place = place
        self._operation = OPERATIONS[generation.request.kind]
        self._meter = model.of(self._operation)
        self._provider = model.provider
        self._trace = trace
        self._model = model.name
        self._id = generation.id
        self._caller = generation.caller
        self._request = generation.request
        self._recovered = generation.seq > 0
        self._began = self._waits_since = time.time_ns()
        self._attempts = 0
        self._attempt: _Attempt | None = None
        self._first = 0
        self._first_s: float | None = None
        self._queue_s: float | None = None
        self._slowest_s: float | None = None
        self._events: list[SpanEvent] = []

    # The generation's meter.

    def first_token(self, after_s: float) -> None:
        self._meter.first_token(after_s)
        self._first = time.time_ns()
        self._first_s = after_s

    def tokens(self, count: int, gap_s: float) -> None:
        self._meter.tokens(count, gap_s)
        if self._slowest_s is None or gap_s / count > self._slowest_s:
            self._slowest_s = gap_s / count

    # What the service tells.

    def attempt(self, replica: str) -> Trace:
        now = time.time_ns()
        self._waited(now)
        if self._queue_s is None:
            self._queue_s = (now - self._began) / 1e9
        self._attempts += 1
        span_id = self._place.new_id()
        self._attempt = _Attempt(replica, self._attempts, span_id, now)
        trace = self._trace
        return Trace(f"00-{self.trace_id:032x}-{span_id:016x}-01", trace.tracestate, trace.baggage)

    def broke(self, error: HeadraceError) -> None:
        self._attempted(time.time_ns(), error.code, error.message)

    def prompted(self) -> None:
        now = time.time_ns()
        self._events.append(SpanEvent("prompt", now))
        self._attempted(now, None, "")

    def moved(self) -> None:
        self._waits_since = time.time_ns()
        self._events.append(SpanEvent("moved", self._waits_since))

    def ended(self, end: Finish | Error) -> None:
        now = time.time_ns()
        attributes = self._attributes()
        code, message = None, ""
        if isinstance(end, Error):
            code, message = Code(end.code), end.message
        else:
            usage = end.usage
            attributes["gen_ai.response.finish_reasons"] = list(end.reasons)
            attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
            attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        self._close(now, attributes, code, message)
        e2e_s = None if code else (now - self._began) / 1e9
        self._meter.exemplify(
            Exemplar(self.trace_id, self.span_id, now / 1e9),
            queue=self._queue_s,
            first=self._first_s,
            gap=self._slowest_s,
            e2e=e2e_s,
        )

    def left(self) -> None:
        """The server stops; the next one may go on with the generation, in the same trace."""
        now = time.time_ns()
        self._events.append(SpanEvent("server_stopped", now))
        self._close(now, self._attributes(), None, "")

    # Spans.

    def _close(self, now: int, attributes: dict[str, Any], code: Code | None, message: str) -> None:
        if self._attempt is not None:
            self._attempted(now, code, message)
        else:
            self._waited(now)
        if self._first:
            self._events.append(SpanEvent("first_token", self._first))
        self._put(
            f"{self._operation} {self._model}",
            "internal",
            (self.span_id, self._trace.span_id),
            (self._began, now),
            attributes,
            code,
            message,
            sorted(self._events, key=lambda event: event.at),
        )
        self._place.live.pop(self._id, None)

    def _waited(self, now: int) -> None:
        """It stood in the queue until now, if it did."""
        since, self._waits_since = self._waits_since, 0
        if not since:
            return
        ids = (self._place.new_id(), self.span_id)
        self._put("queue", "internal", ids, (since, now), {})

    def _attempted(self, now: int, code: Code | None, message: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attributes = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self._model,
            "headrace.replica": attempt.replica,
            "headrace.attempt": attempt.number,
            **_address(attempt.replica),
        }
        events = []
        if self._first >= attempt.began:
            events.append(SpanEvent("first_token", self._first))
        ids = (attempt.span_id, self.span_id)
        times = (attempt.began, now)
        self._put("attempt", "client", ids, times, attributes, code, message, events)

    def _put(
        self,
        name: str,
        kind: Kind,
        ids: tuple[int, int],
        times: tuple[int, int],
        attributes: dict[str, Any],
        code: Code | None = None,
        message: str = "",
        events: list[SpanEvent] | None = None,
    ) -> None:
        """``ids``: of the span and the one around it. ``times``: its start and end."""
        if code is not None:
            attributes["error.type"] = code.value
        fault = code is not None and MEANINGS[code].http >= 500
        span = Span(
            name=name,
            kind=kind,
            trace=self.trace_id,
            id=ids[0],
            parent=ids[1],
            tracestate=self._trace.tracestate,
            start=times[0],
            end=times[1],
            attributes=attributes,
            events=events or (),
            error=message[:MAX_MESSAGE] if fault else None,
        )
        self._place.spans.put(span)

    def _attributes(self) -> dict[str, Any]:
        request, caller = self._request, self._caller
        sampling = request.sampling
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": request.model,
            "gen_ai.response.model": self._model,
            "gen_ai.response.id": self._id,
            "gen_ai.request.stream": request.stream,
            "headrace.generation.id": self._id,
            "headrace.request.id": caller.request_id,
            "headrace.tenant": caller.tenant,
        }
        for name, field in _SAMPLING:
            value = getattr(sampling, field)
            if value is not None:
                attributes[f"gen_ai.request.{name}"] = value
        if sampling.stop:
            attributes["gen_ai.request.stop_sequences"] = list(sampling.stop)
        if request.choices != 1:
            attributes["gen_ai.request.choice.count"] = request.choices
        if caller.session_id is not None:
            attributes["gen_ai.conversation.id"] = caller.session_id
        if self._recovered:
            attributes["headrace.recovered"] = True
        if self._attempts > 1:
            attributes["headrace.attempts"] = self._attempts
        return attributes


class _Attempt(NamedTuple):
    """``began``: Unix nanoseconds."""

    replica: str
    number: int
    span_id: int
    began: int


@lru_cache(256)
def _address(replica: str) -> dict[str, str | int]:
    """Host and port of an upstream, from its name ``model@url``."""
    url = urlsplit(replica.partition("@")[2])
    if not url.hostname:
        return {}
    port = url.port or (443 if url.scheme == "https" else 80)
    return {"server.address": url.hostname, "server.port": port}
