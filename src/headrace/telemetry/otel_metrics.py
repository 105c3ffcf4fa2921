"""The ``gen_ai.*`` metrics pushed by OpenTelemetry's exporter, from a thread: what ``/metrics`` shows, seen there.

Nothing goes through the SDK's instruments, which would count everything again for every token.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from headrace import __version__
from headrace.telemetry.gen_ai import GenAi, Row, gen_ai
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.otel_plan import Plan

CLOSE_S = 3.0
"""How long the last export may take at the end."""
EXPORT_MS = 10_000.0

_SCOPE = InstrumentationScope("headrace", __version__)
_logger = logging.getLogger("headrace.telemetry")


class OtelMetrics:
    """Exports every ``plan.metrics_period_s``, and once more at the end."""

    def __init__(self, plan: Plan, resource: Resource, metrics: Metrics) -> None:
        self._exporters = [_exporter(name, plan.metrics_protocol) for name in plan.metrics]
        self._period_s = plan.metrics_period_s
        self._resource = resource
        self._metrics = metrics
        self._began = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-otel-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Blocks for ``CLOSE_S`` at most; idempotent."""
        self._stopping.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        going = True
        while going:
            going = not self._stopping.wait(self._period_s)
            data = self._data()
            for exporter in self._exporters:
                try:
                    exporter.export(data, EXPORT_MS)
                except Exception:
                    _logger.exception("metrics could not be exported")
        for exporter in self._exporters:
            exporter.shutdown()

    def _data(self) -> MetricsData:
        now = time.time_ns()
        models = list(self._metrics.models.values())
        metrics = [_metric(number, self._began, now) for number in gen_ai(models) if number.rows]
        scope = ScopeMetrics(_SCOPE, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])


def _exporter(name: str, protocol: str) -> MetricExporter:
    if name == "console":
        return ConsoleMetricExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

        return grpc.OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

    return http.OTLPMetricExporter()


def _metric(number: GenAi, began: int, now: int) -> Metric:
    points = [_point(row, began, now) for row in number.rows]
    data = Histogram(points, AggregationTemporality.CUMULATIVE)
    return Metric(number.name, number.help, number.unit, data)


def _point(row: Row, began: int, now: int) -> HistogramDataPoint:
    below = [0, *(count for _, count, _ in row.buckets)]
    counts = [after - before for before, after in pairwise(below)]
    return HistogramDataPoint(
        attributes={name: value for name, value in row.attributes.items() if value},
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=below[-1],
        sum=row.sum,
        bucket_counts=counts,
        explicit_bounds=[bound for bound, _, _ in row.buckets[:-1]],
        min=None,  # type: ignore[arg-type]  # not known, and optional on the wire
        max=None,  # type: ignore[arg-type]
        exemplars=list(_exemplars(row)),
    )


def _exemplars(row: Row) -> Iterator[Exemplar]:
    for _, _, exemplar in row.buckets:
        if exemplar is not None:
            at = int(exemplar.time * 1e9)
            yield Exemplar({}, exemplar.value, at, exemplar.span_id, exemplar.trace_id)
