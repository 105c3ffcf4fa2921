from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.telemetry.histogram import (
    BOTH_REQUEST_S,
    GEN_AI_FIRST_TOKEN_S,
    GEN_AI_PER_TOKEN_S,
    GEN_AI_REQUEST_S,
    GEN_AI_TOKENS,
    INTER_TOKEN_S,
    REQUEST_S,
    TIME_TO_FIRST_TOKEN_S,
    Exemplar,
    Histogram,
)

BOUNDS = (0.1, 0.5, 1.0)


def test_a_value_on_a_bound_belongs_to_that_bucket() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(0.5)
    histogram.observe(0.500001)
    assert histogram.counts == [0, 1, 1, 0]


def test_many_equal_values_count_as_many() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe_many(0.2, 3)
    assert histogram.counts == [0, 3, 0, 0]
    assert round(histogram.total_s, 9) == 0.6


def test_no_observation_has_no_quantile() -> None:
    assert Histogram(BOUNDS).quantile(0.5) is None


@given(st.lists(st.floats(0, 0.99), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_never_below_the_true_one(values: list[float], q: float) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    rank = max(1, -int(-q * len(values) // 1))
    quantile = histogram.quantile(q)
    assert quantile is not None
    assert quantile >= sorted(values)[rank - 1]


@given(st.lists(st.floats(0, 5)))
def test_the_last_cumulative_bucket_holds_everything(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    bounds, counts, _ = zip(*histogram.buckets(), strict=True)
    assert bounds == (0.1, 0.5, 1.0, inf)
    assert counts[-1] == len(values) == histogram.count
    assert list(counts) == sorted(counts)


@given(st.lists(st.floats(0, 5)))
def test_fewer_buckets_count_the_same(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    all_of_them = {bound: count for bound, count, _ in histogram.buckets()}
    few = {bound: count for bound, count, _ in histogram.buckets((0.5,))}
    assert few == {bound: all_of_them[bound] for bound in (0.5, inf)}


def test_a_bucket_has_the_newest_of_its_exemplars() -> None:
    histogram = Histogram(BOUNDS)
    for time, value in enumerate((0.05, 0.2, 0.3, 7.0)):
        histogram.observe(value)
        histogram.exemplify(Exemplar(1, 2, float(time), value))
    found = [exemplar and exemplar.value for _, _, exemplar in histogram.buckets()]
    assert found == [0.05, 0.3, None, 7.0]
    fewer = [exemplar and exemplar.value for _, _, exemplar in histogram.buckets((0.5, 1.0))]
    assert fewer == [0.3, None, 7.0]


def test_merged_ones_count_what_each_has_seen_with_the_newest_exemplars() -> None:
    early, late = Histogram(BOUNDS), Histogram(BOUNDS)
    for time, (part, value) in enumerate(((early, 0.3), (late, 0.2), (early, 0.05))):
        part.observe(value)
        part.exemplify(Exemplar(1, 2, float(time), value))
    whole = Histogram.merged(BOUNDS, [early, late])
    assert (whole.counts, whole.total_s) == ([1, 2, 0, 0], pytest.approx(0.55))
    found = [exemplar and exemplar.value for _, _, exemplar in whole.buckets()]
    assert found == [0.05, 0.2, None, None]


def test_the_buckets_of_opentelemetry_are_some_of_those_that_are_counted() -> None:
    assert set(GEN_AI_FIRST_TOKEN_S) < set(TIME_TO_FIRST_TOKEN_S)
    assert set(GEN_AI_PER_TOKEN_S) < set(INTER_TOKEN_S)
    assert set(GEN_AI_REQUEST_S) < set(BOTH_REQUEST_S) > set(REQUEST_S)
    assert GEN_AI_FIRST_TOKEN_S[-1] == 10.0
    assert (GEN_AI_REQUEST_S[-1], GEN_AI_TOKENS[-1]) == (81.92, 67108864)
