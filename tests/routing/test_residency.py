"""Who leaves memory: the one used the longest ago, never one in use, never more than need be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.routing.residency import Residency


def filled(**used_at: float) -> Residency[str]:
    """Room for 30; each has 10."""
    residency: Residency[str] = Residency(30)
    for key, when in used_at.items():
        residency.came(key, 10, when)
    return residency


def test_without_a_budget_nobody_has_to_leave() -> None:
    residency: Residency[str] = Residency()
    residency.came("a", 10**12, 0.0)
    assert residency.make_room(10**12) == ()
    assert residency.fits(10**15)


def test_the_one_used_the_longest_ago_makes_room() -> None:
    assert filled(a=3.0, b=1.0, c=2.0).make_room(10) == ["b"]
    assert filled(a=3.0, b=1.0, c=2.0).make_room(11) == ["b", "c"]
    assert filled(a=3.0).make_room(20) == []


def test_use_makes_it_the_newest() -> None:
    residency = filled(a=3.0, b=1.0, c=2.0)
    residency.began("b", 4.0)
    residency.ended("b", 5.0)
    assert residency.make_room(10) == ["c"]


def test_one_in_use_stays_and_where_only_those_are_there_is_no_room() -> None:
    residency = filled(a=1.0, b=2.0, c=3.0)
    residency.began("a", 1.0)
    assert residency.make_room(10) == ["b"]
    assert residency.make_room(20) == ["b", "c"]
    assert residency.make_room(21) is None
    residency.ended("a", 1.0)
    assert residency.make_room(30) == ["a", "b", "c"]


def test_what_can_never_fit_is_known() -> None:
    assert not filled().fits(31)
    assert filled(a=1.0, b=1.0, c=1.0).fits(30)


def test_who_rests_longer_than_it_may_leaves_unless_it_is_in_use() -> None:
    residency: Residency[str] = Residency()
    residency.came("short", 1, 0.0, idle_s=10.0)
    residency.came("long", 1, 0.0, idle_s=100.0)
    residency.came("ever", 1, 0.0)
    assert residency.resting(10.0) == []
    assert residency.resting(10.1) == ["short"]
    residency.began("short", 10.2)
    assert residency.resting(50.0) == []
    residency.ended("short", 60.0)
    assert residency.resting(65.0) == []
    assert residency.resting(101.0) == ["short", "long"]


def test_an_end_after_it_left_is_nothing() -> None:
    residency = filled(a=1.0)
    residency.began("a", 1.0)
    residency.left("a")
    residency.ended("a", 2.0)
    residency.left("a")
    assert residency.residents == []
    assert residency.bytes == 0


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99), st.booleans()), max_size=8),
    st.integers(1, 40),
)
def test_whoever_leaves_is_enough_and_nobody_too_many(
    models: list[tuple[int, int, bool]], size: int
) -> None:
    budget = 40
    residency: Residency[int] = Residency(budget)
    for key, (weight, used_at, in_use) in enumerate(models):
        residency.came(key, weight, used_at)
        if in_use:
            residency.began(key, used_at)
    leaving = residency.make_room(size)
    if leaving is None:
        assert sum(weight for weight, _, in_use in models if in_use) + size > budget
        return
    assert not any(models[key][2] for key in leaving)
    left = residency.bytes - sum(models[key][0] for key in leaving)
    assert left + size <= budget
    if leaving:
        assert left + models[leaving[-1]][0] + size > budget
