"""What the server counts: plain numbers, written on the event loop, read from any thread.

No locks, no registry and no label look-up in the way of a token. A label's values are bounded: after
``MODEL_LABELS`` model names the rest counts as ``other``; codes and reasons are closed sets.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from headrace.domain.event import Usage
from headrace.telemetry.collector import GcWatch
from headrace.telemetry.histogram import (
    BOTH_REQUEST_S,
    GEN_AI_REQUEST_S,
    INTER_TOKEN_S,
    REQUEST_S,
    TIME_TO_FIRST_TOKEN_S,
    Exemplar,
    Histogram,
)
from headrace.telemetry.tokens import TokenCounts

Read = Callable[[], float]
"""Gives a number when asked, from any thread: it may read a counter or a length, nothing more."""

MODEL_LABELS = 1000
OTHER = "other"


class Watched(NamedTuple):
    """A number that somebody else keeps. ``counter``: it only rises while the process lives."""

    metric: str
    counter: bool
    help: str


OF_A_MODEL: dict[str, Watched] = {
    "waiting": Watched("vllm:num_requests_waiting", False, "Generations waiting for a slot."),
    "running": Watched("vllm:num_requests_running", False, "Generations that have a slot."),
    "kv_cache_usage": Watched(
        "vllm:kv_cache_usage_perc", False, "Share of the engine's key-value cache in use, 0 to 1."
    ),
    "engine_restarts": Watched(
        "headrace_engine_restarts", True, "Engine processes started again after they died."
    ),
}
OF_THE_SERVER: dict[str, Watched] = {
    "readers": Watched("headrace_readers", False, "Readers attached to logs."),
    "connections": Watched("headrace_connections", False, "Open client connections."),
    "log_bytes": Watched(
        "headrace_log_bytes", False, "Bytes on the disk of the store's database and journal."
    ),
    "store_appends": Watched("headrace_store_appends", True, "Records appended to the journal."),
    "store_commits": Watched("headrace_store_commits", True, "Commits of the store."),
    "limited": Watched(
        "headrace_limited_requests", True, "Requests that a limit of their key or tenant kept out."
    ),
    "log_lines_dropped": Watched(
        "headrace_log_lines_dropped", True, "Lines that found the log writer's queue full."
    ),
}


LEFT = ("cancelled", "client_gone")
"""Ends that are no failure: somebody wanted them."""


class LastError(NamedTuple):
    """``time``: float Unix seconds."""

    code: str
    message: str
    time: float


class ModelMetrics:
    """The counters of one model. Every method is called on the event loop thread. ``provider``: who computes
    it, as OpenTelemetry names it. ``failures``: how long those took that ended with an error, by its code."""

    __slots__ = (
        "_metrics",
        "admitted_count",
        "e2e",
        "failed_tokens",
        "failures",
        "first",
        "gap",
        "name",
        "provider",
        "queue",
        "reasons",
        "token_batches",
        "tokens_used",
        "watched",
    )

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.provider = "headrace"
        self._metrics = metrics
        self.admitted_count = 0
        self.tokens_used = TokenCounts()
        self.failed_tokens = 0
        self.token_batches = 0
        self.queue = Histogram(REQUEST_S)
        self.first = Histogram(TIME_TO_FIRST_TOKEN_S)
        self.gap = Histogram(INTER_TOKEN_S)
        self.e2e = Histogram(BOTH_REQUEST_S)
        self.failures: dict[str, Histogram] = {}
        self.reasons: dict[str, int] = {}
        self.watched: dict[str, list[Read]] = {}

    def watch(self, number: str, read: Read) -> None:
        """Show a number of :data:`OF_A_MODEL`; one number of several sources is added up."""
        if number not in OF_A_MODEL:
            raise KeyError(number)
        self.watched.setdefault(number, []).append(read)

    @property
    def prompt_tokens(self) -> int:
        """Of finished generations."""
        return self.tokens_used.fold().prompt

    @property
    def cached_tokens(self) -> int:
        """Those of the prompt tokens that a prefix cache had."""
        return self.tokens_used.fold().cached

    @property
    def generation_tokens(self) -> int:
        """Of ended generations."""
        return self.tokens_used.fold().completion + self.failed_tokens

    def exemplify(self, exemplar: Exemplar, **values_s: float | None) -> None:
        """Lead from the buckets of these values (``first=0.2`` …) to a trace."""
        for name, value_s in values_s.items():
            if value_s is not None:
                histogram: Histogram = getattr(self, name)
                histogram.exemplify(exemplar._replace(value=value_s))

    # Observed without a call each: these are on the way of every request.

    def started(self, queue_s: float) -> None:
        queue = self.queue
        queue.counts[bisect_left(REQUEST_S, queue_s)] += 1
        queue.total_s += queue_s

    def first_token(self, after_s: float) -> None:
        """``after_s``: from admission to the first visible token."""
        first = self.first
        first.counts[bisect_left(TIME_TO_FIRST_TOKEN_S, after_s)] += 1
        first.total_s += after_s

    def tokens(self, count: int, gap_s: float) -> None:
        """``count`` tokens became visible together, ``gap_s`` after the ones before them."""
        if gap_s < 0:  # the clock was set
            gap_s = 0.0
        gap = self.gap
        gap.counts[bisect_left(INTER_TOKEN_S, gap_s / count)] += count
        gap.total_s += gap_s
        self.token_batches += 1

    def finished(self, reason: str, e2e_s: float, usage: Usage) -> None:
        """A generation ended well, with the usage that its ``finish`` event says."""
        e2e, reasons = self.e2e, self.reasons
        e2e.counts[bisect_left(BOTH_REQUEST_S, e2e_s)] += 1
        e2e.total_s += e2e_s
        self.tokens_used.note(usage)
        reasons[reason] = reasons.get(reason, 0) + 1

    def failed(
        self,
        code: str,
        message: str = "",
        completion_tokens: int = 0,
        e2e_s: float | None = None,
    ) -> None:
        """A generation ended with ``error``, after ``completion_tokens`` were delivered."""
        self.failed_tokens += completion_tokens
        if e2e_s is not None:
            failures = self.failures
            if code not in failures:
                failures[code] = Histogram(GEN_AI_REQUEST_S)
            failures[code].observe(e2e_s)
        self._metrics.count_error(self.name, code, message)


class Metrics:
    """All counters of one server. ``now``: float Unix seconds, for the time of the last error."""

    def __init__(
        self, gc_watch: GcWatch | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.models: dict[str, ModelMetrics] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.watched: dict[str, list[Read]] = {}
        self.last_error: LastError | None = None
        self.gc_watch = gc_watch
        self._now = now

    def model(self, name: str) -> ModelMetrics:
        """The counters of a model, made when first asked for. Keep the result: this is a look-up."""
        known = self.models.get(name)
        if known is not None:
            return known
        if len(self.models) >= MODEL_LABELS and name != OTHER:
            return self.model(OTHER)
        made = self.models[name] = ModelMetrics(name, self)
        return made

    def watch(self, number: str, read: Read) -> None:
        """Show a number of :data:`OF_THE_SERVER`; one number of several sources is added up."""
        if number not in OF_THE_SERVER:
            raise KeyError(number)
        self.watched.setdefault(number, []).append(read)

    def fold(self) -> None:
        """Add up what was noted; called with every tick."""
        for model in self.models.values():
            model.tokens_used.fold_if_free()

    def refused(self, code: str, message: str = "") -> None:
        """A request that never became a generation of a model."""
        self.count_error("", code, message)

    def count_error(self, model: str, code: str, message: str) -> None:
        key = (model, code)
        self.errors[key] = self.errors.get(key, 0) + 1
        if code not in LEFT:
            self.last_error = LastError(code, message, self._now())
