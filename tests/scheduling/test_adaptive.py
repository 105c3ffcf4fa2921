"""The limit of what is in flight at an upstream that does not say its slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.scheduling.adaptive import AdaptiveLimit


def settled(slots: int, limit: AdaptiveLimit, requests: int = 20_000) -> list[int]:
    """An upstream with so many slots, always asked for as much as the limit lets; what queues there waits for
    its turn. The limits of the last thousand requests."""
    limits = []
    for _ in range(requests):
        in_flight = limit.limit
        limit.took(max(1.0, in_flight / slots), in_flight)
        limits.append(limit.limit)
    return limits[-1000:]


@pytest.mark.parametrize("slots", [4, 16, 100])
@pytest.mark.parametrize("initial", [1, 8, 200])
def test_it_finds_about_what_the_upstream_can_have(slots: int, initial: int) -> None:
    limits = settled(slots, AdaptiveLimit(initial=initial))
    assert min(limits) >= slots / 2
    assert sorted(limits)[500] >= slots
    assert max(limits) <= 1.5 * slots + 4


def test_it_follows_an_upstream_that_loses_slots() -> None:
    limit = AdaptiveLimit()
    before = max(settled(64, limit))
    assert max(settled(8, limit)) < before / 2


def test_it_does_not_grow_where_it_is_not_what_limits() -> None:
    limit = AdaptiveLimit(initial=20)
    assert limit.limit == 10  # until it knows what it takes with few
    for _ in range(1000):
        limit.took(1.0, 3)
    assert limit.limit == 20


def test_refusals_shrink_it_at_once_and_never_below_the_least() -> None:
    limit = AdaptiveLimit(initial=100, least=2)
    for _ in range(5):  # what it takes with few
        limit.took(1.0, 1)
    limit.refused()
    assert limit.limit == 90
    for _ in range(100):
        limit.refused()
    assert limit.limit == 2


@given(
    st.lists(st.one_of(st.tuples(st.floats(), st.integers(-10, 10_000)), st.none()), max_size=200),
    st.integers(1, 50),
)
def test_no_measurement_takes_it_out_of_its_bounds(
    seen: list[tuple[float, int] | None], most: int
) -> None:
    limit = AdaptiveLimit(initial=1, most=most)
    for one in seen:
        if one is None:
            limit.refused()
        else:
            limit.took(*one)
        assert 1 <= limit.limit <= most


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^initial: "):
        AdaptiveLimit(initial=8, most=4)
