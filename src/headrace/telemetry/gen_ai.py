"""OpenTelemetry's metrics for generative AI, seen in what is counted for the vLLM names: nothing is counted
twice. https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import NamedTuple

from headrace.telemetry.histogram import (
    GEN_AI_FIRST_TOKEN_S,
    GEN_AI_PER_TOKEN_S,
    GEN_AI_REQUEST_S,
    GEN_AI_TOKENS,
    Bucket,
    Histogram,
)
from headrace.telemetry.metrics import ModelMetrics


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


def gen_ai(models: Sequence[ModelMetrics]) -> Iterator[GenAi]:
    """All of them."""
    yield GenAi(
        "gen_ai.server.request.duration",
        "s",
        "From admission to the end of the log.",
        [row for model in models for row in _durations(model)],
    )
    yield GenAi(
        "gen_ai.server.time_to_first_token",
        "s",
        "From admission to the first visible token.",
        [_times(model, model.first, GEN_AI_FIRST_TOKEN_S) for model in models],
    )
    yield GenAi(
        "gen_ai.server.time_per_output_token",
        "s",
        "Between two visible tokens of a generation.",
        [_times(model, model.gap, GEN_AI_PER_TOKEN_S) for model in models],
    )
    yield GenAi(
        "gen_ai.client.token.usage",
        "{token}",
        "Tokens of a finished generation.",
        [row for model in models for row in _tokens(model)],
    )


def _of(model: ModelMetrics, **more: str) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": model.provider,
        "gen_ai.request.model": model.name,
        "gen_ai.response.model": model.name,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def _times(model: ModelMetrics, histogram: Histogram, bounds: Sequence[float], **more: str) -> Row:
    return Row(_of(model, **more), list(histogram.buckets(bounds)), histogram.total_s)


def _durations(model: ModelMetrics) -> Iterator[Row]:
    yield _times(model, model.e2e, GEN_AI_REQUEST_S, error__type="")
    for code, histogram in list(model.failures.items()):
        yield _times(model, histogram, GEN_AI_REQUEST_S, error__type=code)


def _tokens(model: ModelMetrics) -> Iterator[Row]:
    used = model.tokens_used.fold()
    sides = (("input", used.inputs, used.prompt), ("output", used.outputs, used.completion))
    for kind, counts, total in sides:
        below = accumulate(list(counts))
        buckets = [
            (float(bound), count, None)
            for bound, count in zip((*GEN_AI_TOKENS, inf), below, strict=True)
        ]
        yield Row(_of(model, gen_ai__token__type=kind), buckets, total)
