"""What the server counts: plain numbers, written on the event loop, read from any thread.

No locks, no registry and no label look-up in the way of a token. A label's values are bounded: after
``MODEL_LABELS`` model names, and ``REPLICA_LABELS`` replicas of each, the rest counts as ``other``; codes and
reasons are closed sets.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from headrace.telemetry.attainment import OTHER, Key
from headrace.telemetry.collector import GcWatch
from headrace.telemetry.counters import Counters
from headrace.telemetry.histogram import (
    BOTH_REQUEST_S,
    INTER_TOKEN_S,
    REQUEST_S,
    TIME_TO_FIRST_TOKEN_S,
    Histogram,
)
from headrace.telemetry.tensor_numbers import ReadTensors

Read = Callable[[], float]
"""Gives a number when asked, from any thread: it may read a counter or a length, nothing more."""

Operation = Literal["chat", "text_completion"]
"""``gen_ai.operation.name``, as OpenTelemetry has it."""
OPERATIONS: dict[str, Operation] = {"chat": "chat", "completion": "text_completion"}
"""By a request's kind."""

MODEL_LABELS = 1000
REPLICA_LABELS = 100
"""Of each model."""


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
OF_A_REPLICA: dict[str, Watched] = {
    "places": Watched("headrace_replica_places", False, "Generations it may have at once now."),
    "in_use": Watched("headrace_replica_in_use", False, "Generations it has, by their choices."),
    "refusals": Watched(
        "headrace_replica_refusals",
        True,
        "Runs that it had no room for, and that went again or failed.",
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
    """What is counted of one model, by operation (as OpenTelemetry names them), and all of it together, for
    the names that know no operations: added up when somebody asks. ``provider``: who computes it."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.provider = "headrace"
        self.operations: dict[Operation, Counters] = {}
        self.watched: dict[str, list[Read]] = {}
        self.replicas: dict[str, dict[str, list[Read]]] = {}
        self._metrics = metrics

    def of(self, operation: Operation) -> Counters:
        """The counters of an operation, made when first asked for. Keep the result: this is a look-up."""
        known = self.operations.get(operation)
        if known is None:
            count_error = partial(self._metrics.count_error, self.name)
            known = self.operations[operation] = Counters(count_error)
        return known

    def by_kind(self) -> dict[str, Counters]:
        """The counters of every operation, by the kind of its requests."""
        return {kind: self.of(operation) for kind, operation in OPERATIONS.items()}

    def watch(self, number: str, read: Read) -> None:
        """Show a number of :data:`OF_A_MODEL`; one number of several sources is added up."""
        if number not in OF_A_MODEL:
            raise KeyError(number)
        self.watched.setdefault(number, []).append(read)

    def watch_replica(self, number: str, replica: str, read: Read) -> None:
        """Show a number of :data:`OF_A_REPLICA`; of those with one name it is added up."""
        if number not in OF_A_REPLICA:
            raise KeyError(number)
        if replica not in self.replicas and len(self.replicas) >= REPLICA_LABELS:
            replica = OTHER
        self.replicas.setdefault(replica, {}).setdefault(number, []).append(read)

    @property
    def all(self) -> Sequence[Counters]:
        """Of every operation."""
        return list(self.operations.values())

    @property
    def queue(self) -> Histogram:
        return Histogram.merged(REQUEST_S, [each.queue for each in self.all])

    @property
    def shorter(self) -> Histogram:
        """By how much waits were shorter than foreseen."""
        return Histogram.merged(REQUEST_S, [each.shorter for each in self.all])

    @property
    def longer(self) -> Histogram:
        return Histogram.merged(REQUEST_S, [each.longer for each in self.all])

    @property
    def first(self) -> Histogram:
        return Histogram.merged(TIME_TO_FIRST_TOKEN_S, [each.first for each in self.all])

    @property
    def gap(self) -> Histogram:
        return Histogram.merged(INTER_TOKEN_S, [each.gap for each in self.all])

    @property
    def e2e(self) -> Histogram:
        return Histogram.merged(BOTH_REQUEST_S, [each.e2e for each in self.all])

    @property
    def admitted_count(self) -> int:
        return sum(each.admitted_count for each in self.all)

    @property
    def token_batches(self) -> int:
        return sum(each.token_batches for each in self.all)

    @property
    def reasons(self) -> Mapping[str, int]:
        """Generations that ended well, by why."""
        reasons: Counter[str] = Counter()
        for each in self.all:
            reasons.update(each.reasons.copy())
        return reasons

    @property
    def attainment(self) -> Mapping[Key, int]:
        """Generations that ended and had a target."""
        counts: Counter[Key] = Counter()
        for each in self.all:
            counts.update(each.attainment.counts.copy())
        return counts

    @property
    def prompt_tokens(self) -> int:
        """Of finished generations."""
        return sum(each.tokens_used.fold().prompt for each in self.all)

    @property
    def cached_tokens(self) -> int:
        """Those of the prompt tokens that a prefix cache had."""
        return sum(each.tokens_used.fold().cached for each in self.all)

    @property
    def generation_tokens(self) -> int:
        """Of ended generations."""
        return sum(each.tokens_used.fold().completion + each.failed_tokens for each in self.all)


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
        self.tensors: ReadTensors | None = None
        """Set where there are models that take tensors."""
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
            for counters in model.operations.values():
                counters.tokens_used.fold_if_free()

    def refused(self, code: str, message: str = "") -> None:
        """A request that never became a generation of a model."""
        self.count_error("", code, message)

    def count_error(self, model: str, code: str, message: str) -> None:
        key = (model, code)
        self.errors[key] = self.errors.get(key, 0) + 1
        if code not in LEFT:
            self.last_error = LastError(code, message, self._now())
