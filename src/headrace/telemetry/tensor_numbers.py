"""What is counted of models that take tensors, in Prometheus' words. Built when somebody scrapes, in their thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from headrace.domain.tensors import TensorCounts, TensorModel

ReadTensors = Callable[[], Sequence[tuple[TensorModel, TensorCounts]]]
"""All versions, from any thread; bounded by the settings."""

_LABELS = ["model_name", "model_version"]


class _Number(NamedTuple):
    metric: str
    attribute: str
    help: str


_COUNTERS = (
    _Number("headrace_tensor_rows", "rows", "Rows of requests that were answered."),
    _Number("headrace_tensor_runs", "runs", "Runs of the engine, each of one request or several."),
    _Number("headrace_tensor_queue_seconds", "queue_s", "From a request's coming to its run."),
    _Number("headrace_tensor_run_seconds", "run_s", "Seconds of all runs."),
)


def tensor_numbers(read: ReadTensors) -> Iterator[Metric]:
    """Of every version."""
    rows = [([model.name, model.version], model, counts) for model, counts in read()]
    requests = CounterMetricFamily(
        "headrace_tensor_requests",
        "Requests for tensors, by how they ended.",
        labels=[*_LABELS, "end"],
    )
    for labels, _, counts in rows:
        requests.add_metric([*labels, "answered"], counts.requests)
        requests.add_metric([*labels, "failed"], counts.failed)
        requests.add_metric([*labels, "cancelled"], counts.cancelled)
    yield requests
    for number in _COUNTERS:
        family = CounterMetricFamily(number.metric, number.help, labels=_LABELS)
        for labels, _, counts in rows:
            family.add_metric(labels, getattr(counts, number.attribute))
        yield family
    loaded = GaugeMetricFamily(
        "headrace_tensor_loaded_bytes",
        "Bytes of its file while it is loaded, else 0.",
        labels=_LABELS,
    )
    for labels, model, _ in rows:
        loaded.add_metric(labels, model.size_bytes if model.state == "ready" else 0)
    yield loaded
