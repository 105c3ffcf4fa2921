"""How the counters are said: Prometheus text, OpenMetrics or JSON, by what the scraper accepts.

Everything is built from :class:`Metrics` at scrape time, in the scraper's thread; nothing is kept.
Names are those that dashboards and Kubernetes gateways read (``vllm:…``); ours are ``headrace_…``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as Sample

from headrace import __version__
from headrace.telemetry.gen_ai import GenAi, gen_ai
from headrace.telemetry.histogram import REQUEST_S, Bucket, Exemplar, Histogram
from headrace.telemetry.metrics import (
    LEFT,
    OF_A_MODEL,
    OF_A_REPLICA,
    OF_THE_SERVER,
    Metrics,
    ModelMetrics,
    Read,
    Watched,
)
from headrace.telemetry.tensor_numbers import tensor_numbers

_MODEL = ["model_name"]

_HISTOGRAMS = (
    ("vllm:time_to_first_token_seconds", "first", "From admission to the first visible token."),
    ("vllm:inter_token_latency_seconds", "gap", "Between two visible tokens of a generation."),
    ("vllm:e2e_request_latency_seconds", "e2e", "From admission to the finish event."),
    ("vllm:request_queue_time_seconds", "queue", "From admission to a slot."),
)
_BOUNDS = {"e2e": REQUEST_S}
"""Of those that are counted in more buckets than are shown."""
_COUNTERS = (
    ("vllm:prompt_tokens", "prompt_tokens", "Prompt tokens of finished generations."),
    ("vllm:generation_tokens", "generation_tokens", "Tokens produced by ended generations."),
    ("headrace_cached_prompt_tokens", "cached_tokens", "Prompt tokens a prefix cache had."),
    ("headrace_requests", "admitted_count", "Generations admitted."),
    ("headrace_token_batches", "token_batches", "Batches of tokens after the first."),
)
"""Metric, attribute of :class:`ModelMetrics`, help."""


class Exposition(Collector):
    """Renders one server's :class:`Metrics`.

    Safe to call from any thread while the event loop is blocked.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def render(self, accept: str) -> tuple[str, bytes]:
        """``(content type, body)`` for an ``Accept`` header: JSON where it is asked for, OpenMetrics
        where it is understood, Prometheus text 0.0.4 otherwise."""
        if "application/json" in accept:
            return "application/json", msgspec.json.encode(summary(self._metrics))
        encode, content_type = choose_encoder(accept)
        if not content_type.startswith("application/openmetrics-text"):
            return content_type, encode(self._registry)
        # The library's other escapings make `vllm_…` of the samples of `vllm:…`. All our names are old-style
        # ones, which nothing escapes.
        body: bytes = openmetrics.generate_latest(self._registry, openmetrics.ALLOWUTF8, "1.0.0")  # type: ignore[no-untyped-call]
        return openmetrics.CONTENT_TYPE_LATEST, body

    def collect(self) -> Iterator[Metric]:
        models = list(self._metrics.models.values())
        yield _build()
        for number, watched in OF_A_MODEL.items():
            yield from _of_models(number, watched, models)
        for number, watched in OF_A_REPLICA.items():
            yield from _of_replicas(number, watched, models)
        for name, attribute, text in _HISTOGRAMS:
            rows = [([model.name], getattr(model, attribute)) for model in models]
            yield _histograms(name, text, _MODEL, rows, _BOUNDS.get(attribute))
        yield _wait_errors(models)
        yield from _gen_ai(gen_ai(models))
        for name, attribute, text in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=_MODEL)
            for model in models:
                counter.add_metric([model.name], getattr(model, attribute))
            yield counter
        yield _successes(models)
        yield _attainment(models)
        yield _errors(self._metrics)
        for number, watched in OF_THE_SERVER.items():
            yield from _of_server(watched, self._metrics.watched.get(number, []))
        yield from _pauses(self._metrics)
        if self._metrics.tensors is not None:
            yield from tensor_numbers(self._metrics.tensors)


def _build() -> Metric:
    build = GaugeMetricFamily("headrace_build_info", "The running version.", labels=["version"])
    build.add_metric([__version__], 1)
    return build


def _family(watched: Watched, labels: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if watched.counter else GaugeMetricFamily
    return kind(watched.metric, watched.help, labels=labels)


def _of_models(number: str, watched: Watched, models: list[ModelMetrics]) -> Iterator[Metric]:
    """Left out where nobody knows the number: a missing gauge is honest, a zero is not."""
    family = _family(watched, _MODEL)
    for model in models:
        reads = model.watched.get(number)
        if reads:
            family.add_metric([model.name], _sum(reads))
    if family.samples:
        yield family


def _of_replicas(number: str, watched: Watched, models: list[ModelMetrics]) -> Iterator[Metric]:
    family = _family(watched, [*_MODEL, "replica"])
    for model in models:
        for replica, watching in list(model.replicas.items()):
            family.add_metric([model.name, replica], _sum(watching.get(number, [])))
    if family.samples:
        yield family


def _of_server(watched: Watched, reads: list[Read]) -> Iterator[Metric]:
    if reads:
        family = _family(watched, [])
        family.add_metric([], _sum(reads))
        yield family


def _sum(reads: list[Read]) -> float:
    return float(sum(read() for read in list(reads)))


def _histograms(
    name: str,
    text: str,
    labels: list[str],
    rows: list[tuple[list[str], Histogram]],
    bounds: Sequence[float] | None = None,
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        family.add_metric(values, _buckets(histogram.buckets(bounds)), histogram.total_s)
    return family


def _buckets(buckets: Iterable[Bucket]) -> list[Any]:
    return [
        (_edge(bound), count) if exemplar is None else (_edge(bound), count, _sample(exemplar))
        for bound, count, exemplar in buckets
    ]


def _edge(bound: float) -> str:
    return "+Inf" if bound == inf else str(float(bound))


def _sample(exemplar: Exemplar) -> Sample:
    ids = {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
    return Sample(ids, exemplar.value, exemplar.time)


def _gen_ai(numbers: Iterable[GenAi]) -> Iterator[Metric]:
    """Named as OpenTelemetry's own exporter for Prometheus names them."""
    for number in numbers:
        name = number.name.replace(".", "_") + ("_seconds" if number.unit == "s" else "")
        labels = list(number.rows[0].attributes) if number.rows else []
        family = HistogramMetricFamily(
            name, number.help, labels=[label.replace(".", "_") for label in labels]
        )
        for row in number.rows:
            values = [row.attributes[label] for label in labels]
            family.add_metric(values, _buckets(row.buckets), row.sum)
        yield family


def _successes(models: list[ModelMetrics]) -> Metric:
    family = CounterMetricFamily(
        "vllm:request_success",
        "Generations that ended with finish.",
        labels=[*_MODEL, "finished_reason"],
    )
    for model in models:
        for reason, count in model.reasons.items():
            family.add_metric([model.name, reason], count)
    return family


def _wait_errors(models: list[ModelMetrics]) -> Metric:
    rows = [
        ([model.name, wait], histogram)
        for model in models
        for wait, histogram in (("shorter", model.shorter), ("longer", model.longer))
    ]
    return _histograms(
        "headrace_wait_estimate_error_seconds",
        "How far estimated waits in the queue were off, by whether the wait was shorter or longer.",
        [*_MODEL, "wait"],
        rows,
    )


def _attainment(models: list[ModelMetrics]) -> Metric:
    family = CounterMetricFamily(
        "headrace_slo_requests",
        "Requests that ended and had a target, by whether it was met.",
        labels=[*_MODEL, "tenant", "target", "met"],
    )
    for model in models:
        for (tenant, target, met), count in model.attainment.items():
            family.add_metric([model.name, tenant, target, "true" if met else "false"], count)
    return family


def _errors(metrics: Metrics) -> Metric:
    family = CounterMetricFamily(
        "headrace_errors",
        "Requests refused and generations that ended with error; refused ones have no model.",
        labels=[*_MODEL, "code"],
    )
    for (model, code), count in list(metrics.errors.items()):
        family.add_metric([model, code], count)
    return family


def _pauses(metrics: Metrics) -> Iterator[Metric]:
    watch = metrics.gc_watch
    if watch is not None:
        rows = [([str(generation)], pauses) for generation, pauses in enumerate(watch.pauses)]
        yield _histograms(
            "headrace_gc_pause_seconds", "Pauses of the garbage collector.", ["generation"], rows
        )


def summary(metrics: Metrics) -> dict[str, Any]:
    """The JSON form: what a person or a script asks first. Latencies in seconds, quantiles rounded
    up to a bucket's bound; ``last_error_time`` in float Unix seconds."""
    models = list(metrics.models.values())
    errors = list(metrics.errors.items())
    last = metrics.last_error
    return {
        "totals": {
            "requests": sum(m.admitted_count for m in models),
            "succeeded": sum(sum(m.reasons.values()) for m in models),
            "failed": sum(count for (_, code), count in errors if code not in LEFT),
            "cancelled": sum(count for (_, code), count in errors if code in LEFT),
            "prompt_tokens": sum(m.prompt_tokens for m in models),
            "completion_tokens": sum(m.generation_tokens for m in models),
        },
        "failures": _by_code(errors),
        "latency": {m.name: _latency(m) for m in models},
        "queue_size": sum(_sum(m.watched.get("waiting", [])) for m in models),
        "active": sum(_sum(m.watched.get("running", [])) for m in models),
        "last_error": None if last is None else {"code": last.code, "message": last.message},
        "last_error_time": None if last is None else last.time,
    }


def _by_code(errors: list[tuple[tuple[str, str], int]]) -> dict[str, int]:
    codes: dict[str, int] = {}
    for (_, code), count in errors:
        codes[code] = codes.get(code, 0) + count
    return codes


def _latency(model: ModelMetrics) -> dict[str, Any]:
    return {
        "e2e_s": _quantiles(model.e2e),
        "time_to_first_token_s": _quantiles(model.first),
        "inter_token_s": _quantiles(model.gap),
        "queue_s": _quantiles(model.queue),
    }


def _quantiles(histogram: Histogram) -> dict[str, float | int | None]:
    count = histogram.count
    mean = histogram.total_s / count if count else None
    return {
        "count": count,
        "mean": mean,
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
    }
