"""OpenTelemetry's metrics for generative AI, seen in what is counted for the vLLM names: nothing is counted
twice. https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import NamedTuple

from headrace.telemetry.counters import Counters
from headrace.telemetry.histogram import (
    GEN_AI_FIRST_TOKEN_S,
    GEN_AI_PER_TOKEN_S,
    GEN_AI_REQUEST_S,
    GEN_AI_TOKENS,
    Bucket,
    Histogram,
)
from headrace.telemetry.metrics import ModelMetrics, Operation


class Row(NamedTuple):
    """One series of a histogram."""

    attributes: dict[str, str]
    buckets: Sequence[Bucket]
    sum: float


class GenAi(NamedTuple):
    """One metric. ``unit`` as OpenTelemetry has it: ``s``, ``{token}``. All rows have the same attributes,
    those that say nothing are empty."""

    name: str
    unit: str
    help: str
    rows: Sequence[Row]


class _Counted(NamedTuple):
    """One operation of one model."""

    model: ModelMetrics
    operation: Operation
    counters: Counters


def gen_ai(models: Sequence[ModelMetrics]) -> Iterator[GenAi]:
    """All of them. An operation that nobody has asked a model for has no rows."""
    counted = [
        _Counted(model, operation, counters)
        for model in models
        for operation, counters in model.operations.copy().items()
        if counters.admitted_count
    ]
    yield GenAi(
        "gen_ai.server.request.duration",
        "s",
        "From admission to the end of the log.",
        [row for each in counted for row in _durations(each)],
    )
    yield GenAi(
        "gen_ai.server.time_to_first_token",
        "s",
        "From admission to the first visible token.",
        [_times(each, each.counters.first, GEN_AI_FIRST_TOKEN_S) for each in counted],
    )
    yield GenAi(
        "gen_ai.server.time_per_output_token",
        "s",
        "Between two visible tokens of a generation.",
        [_times(each, each.counters.gap, GEN_AI_PER_TOKEN_S) for each in counted],
    )
    yield GenAi(
        "gen_ai.client.token.usage",
        "{token}",
        "Tokens of a finished generation.",
        [row for each in counted for row in _tokens(each)],
    )


def _of(counted: _Counted, **more: str) -> dict[str, str]:
    return {
        "gen_ai.operation.name": counted.operation,
        "gen_ai.provider.name": counted.model.provider,
        "gen_ai.request.model": counted.model.name,
        "gen_ai.response.model": counted.model.name,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def _times(counted: _Counted, histogram: Histogram, bounds: Sequence[float], **more: str) -> Row:
    return Row(_of(counted, **more), list(histogram.buckets(bounds)), histogram.total_s)


def _durations(counted: _Counted) -> Iterator[Row]:
    counters = counted.counters
    yield _times(counted, counters.e2e, GEN_AI_REQUEST_S, error__type="")
    for code, histogram in list(counters.failures.items()):
        yield _times(counted, histogram, GEN_AI_REQUEST_S, error__type=code)


def _tokens(counted: _Counted) -> Iterator[Row]:
    used = counted.counters.tokens_used.fold()
    sides = (("input", used.inputs, used.prompt), ("output", used.outputs, used.completion))
    for kind, counts, total in sides:
        below = accumulate(list(counts))
        buckets = [
            (float(bound), count, None)
            for bound, count in zip((*GEN_AI_TOKENS, inf), below, strict=True)
        ]
        yield Row(_of(counted, gen_ai__token__type=kind), buckets, total)
