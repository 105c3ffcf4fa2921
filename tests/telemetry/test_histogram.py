from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.telemetry.histogram import Histogram

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
    edges = histogram.cumulative()
    assert [edge for edge, _ in edges] == ["0.1", "0.5", "1.0", "+Inf"]
    assert edges[-1][1] == len(values) == histogram.count
    assert [count for _, count in edges] == sorted(count for _, count in edges)
