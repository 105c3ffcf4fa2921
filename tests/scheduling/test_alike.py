"""Which rows are padded together."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.scheduling.alike import Bounds, Ranked, alike


class Asked(NamedTuple):
    length: int
    rows: int = 1
    own_padding: int = 0


Waiting = list[Ranked[Asked]]


def waiting(*entries: Asked | int) -> Waiting:
    """In this order; numbers are lengths."""
    asked = [Asked(one) if isinstance(one, int) else one for one in entries]
    return [(0.5 * number, number, one) for number, one in enumerate(asked)]


def lengths(
    given: Waiting,
    run_length: float,
    *,
    rows: int = 32,
    padding: float = 0.9,
    preferred: Sequence[int] = (),
) -> list[int]:
    bounds = Bounds(rows, preferred, padding)
    return [one.length for _, _, one in alike(given[0], given, bounds, run_length)]


def test_rows_of_near_lengths_share_what_a_run_costs() -> None:
    assert lengths(waiting(20, 40, 22, 8, 19), 7.0) == [20, 22, 19]


def test_who_is_so_far_that_padding_costs_more_than_a_run_is_left() -> None:
    assert lengths(waiting(20, 27, 13), 6.0) == [20]
    assert lengths(waiting(20, 27, 27, 27, 28), 7.0) == [20, 27, 27, 27]
    assert lengths(waiting(20, 24), 7.0) == [20, 24]
    assert lengths(waiting(24, 20), 7.0) == [24, 20]


def test_one_more_comes_only_if_a_row_costs_less_then() -> None:
    """Two of 20 cost 3 each beside their elements; a third one of 16 would come to (6 + 4) / 3."""
    assert lengths(waiting(20, 20, 16), 6.0) == [20, 20]
    assert lengths(waiting(20, 20, 18), 6.0) == [20, 20, 18]
    assert lengths(waiting(20, 20, 24), 6.0) == [20, 20]
    assert lengths(waiting(20, 20, 24, 24, 24, 24), 6.0) == [20, 20, 24, 24, 24, 24]


def test_where_runs_cost_nothing_only_equal_lengths_are_together() -> None:
    assert lengths(waiting(20, 21, 20, 19, 20), 0.0) == [20, 20, 20]


def test_where_rows_cost_nothing_as_many_come_as_padding_allows() -> None:
    given = waiting(20, 10, 40, 1)
    assert lengths(given, math.inf) == [20, 10, 40, 1]
    assert lengths(given, math.inf, padding=0.5) == [20, 10, 1]  # 29 of 60
    assert lengths(given, math.inf, padding=0.0) == [20]


def test_padding_is_of_all_rows_and_bounded() -> None:
    given = waiting(Asked(20, rows=1), Asked(30, rows=9))
    assert lengths(given, 100.0, padding=0.04) == [20, 30]  # 10 of 300
    assert lengths(given, 100.0, padding=0.03) == [20]


def test_no_more_rows_than_a_run_has_and_those_who_waited_longest() -> None:
    given = waiting(20, 20, 20, 20, 20)
    bounds = Bounds(3, (), 0.0)
    assert alike(given[0], list(reversed(given)), bounds, 7.0) == given[:3]
    shorter = waiting(20, 19, 19, 19)
    assert (
        alike(shorter[0], list(reversed(shorter)), bounds._replace(padding=0.5), 7.0)
        == (shorter[:3])
    )
    assert lengths(waiting(20, Asked(20, rows=3), 20), 7.0, rows=3) == [20]


def test_preferred_numbers_of_rows_are_made_where_they_can_be() -> None:
    given = waiting(20, 20, 20, 19, 18)
    assert lengths(given, 9.0) == [20, 20, 20, 19, 18]
    assert lengths(given, 9.0, preferred=(2, 4)) == [20, 20, 20, 19]
    assert lengths(given, 9.0, preferred=(9,)) == [20, 20, 20, 19, 18]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.sampled_from([0.0, 1.0, 3.0, 7.0, 50.0]),
    st.integers(1, 12),
)
def test_no_run_around_the_first_costs_a_row_less(
    given: list[int], run_length: float, most: int
) -> None:
    """All runs of neighbours by length are tried that have the first, and none so far from it that one of the two is
    better off in another run; ``padding`` bounds none."""

    def cost(run: Sequence[int]) -> float:
        return (run_length + len(run) * max(run) - sum(run)) / len(run)

    own = given[0]
    near = [one for one in given[1:] if abs(one - own) <= run_length]
    shorter = sorted([one for one in near if one < own], reverse=True)
    longer = [own, *sorted(one for one in near if one >= own)]
    least = min(
        cost([*shorter[:below], *longer[:above]])
        for below in range(len(shorter) + 1)
        for above in range(1, len(longer) + 1)
        if below + above <= most
    )
    found = lengths(waiting(*given), run_length, rows=most, padding=0.99)
    assert found[0] == own
    assert len(found) <= most
    assert cost(found) == pytest.approx(least)


def least(given: Waiting, bounds: Bounds, run_length: float) -> tuple[bool, float, int]:
    """How good the best run is: every number of longer ones is tried with every number of shorter ones."""
    own = given[0][2].length
    near = [one for one in given if abs(one[2].length - own) <= run_length]
    longer = sorted((one for one in near if one[2].length >= own), key=lambda one: one[2].length)
    shorter = sorted((one for one in near if one[2].length < own), key=lambda one: -one[2].length)
    best = (True, math.inf, 0)
    for above in range(1, len(longer) + 1):
        run = longer[:above]
        for one in (*shorter, None):
            if sum(asked.rows for _, _, asked in run) > bounds.rows:
                break
            if padding(run, own=True) <= bounds.padding * elements(run):
                best = min(best, measured(run, bounds, run_length))
            if one is None or not cheaper(run, one, run_length):
                break
            run = [*run, one]
    return best


def cheaper(run: Waiting, one: Ranked[Asked], run_length: float) -> bool:
    """With one that is shorter."""
    length = one[2].length
    return sum(asked.rows * (asked.length - length) for _, _, asked in run) < run_length


def measured(
    run: Sequence[Ranked[Asked]], bounds: Bounds, run_length: float
) -> tuple[bool, float, int]:
    rows = sum(one.rows for _, _, one in run)
    return rows not in bounds.preferred, (run_length + padding(run)) / rows, -rows


def elements(run: Sequence[Ranked[Asked]]) -> int:
    """With padding."""
    return sum(one.rows for _, _, one in run) * max(one.length for _, _, one in run)


def padding(run: Sequence[Ranked[Asked]], *, own: bool = False) -> int:
    there = sum(one.rows * one.length for _, _, one in run)
    lacking = sum(one.own_padding for _, _, one in run)
    return elements(run) - there + (lacking if own else 0)


ALL_BOUNDS = st.builds(
    Bounds,
    st.integers(3, 20),
    st.frozensets(st.integers(1, 20), max_size=4),
    st.sampled_from([0.0, 0.0625, 0.125, 0.25, 0.5, 1.0]),
)
EVEN = st.builds(Asked, st.integers(1, 24), st.integers(1, 3), st.just(0))
RUN_LENGTHS = st.sampled_from([0.0, 1.0, 3.0, 7.0, 50.0, math.inf])


@settings(max_examples=400)
@given(
    st.lists(EVEN, min_size=1, max_size=14),
    ALL_BOUNDS,
    RUN_LENGTHS,
)
def test_no_run_is_better_of_all_that_can_be(
    asked: list[Asked], bounds: Bounds, run_length: float
) -> None:
    given = waiting(*asked)
    run = alike(given[0], given, bounds, run_length)
    assert run[0] == given[0]
    assert measured(run, bounds, run_length) == least(given, bounds, run_length)


@st.composite
def uneven(draw: st.DrawFn) -> Asked:
    length, rows = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    return Asked(length, rows, draw(st.integers(0, (rows - 1) * (length - 1))))


@settings(max_examples=400)
@given(st.lists(uneven(), min_size=1, max_size=14), ALL_BOUNDS, RUN_LENGTHS)
def test_what_a_request_pads_itself_counts_as_padding(
    asked: list[Asked], bounds: Bounds, run_length: float
) -> None:
    given = waiting(*asked)
    run = alike(given[0], given, bounds, run_length)
    assert run[0] == given[0]
    assert sum(one.rows for _, _, one in run) <= bounds.rows
    if len(run) > 1:
        assert padding(run, own=True) <= bounds.padding * elements(run)


def test_a_request_whose_own_padding_is_too_much_runs_all_the_same() -> None:
    given = waiting(Asked(20, rows=2, own_padding=4), Asked(19))
    assert lengths(given, math.inf, padding=0.0625) == [20]
    assert lengths(given, math.inf, padding=0.125) == [20, 19]  # 5 of 60
    assert lengths(given, math.inf, padding=0.0834) == [20, 19]
    assert lengths(given, math.inf, padding=0.0833) == [20]
    given = waiting(*(one for _, _, one in given), Asked(19))
    assert lengths(given, math.inf, padding=0.08, preferred=(3,)) == [20, 19, 19]  # 6 of 80


@pytest.mark.parametrize("preferred", [(), (8, 32), (5000,)])
@pytest.mark.parametrize("run_length", [40.0, math.inf])
@pytest.mark.parametrize("most", [100, 800, 5000])
def test_the_work_grows_with_those_who_wait_and_not_with_their_square(
    preferred: tuple[int, ...], run_length: float, most: int
) -> None:
    def work(count: int) -> int:
        given = waiting(*(97 + number * 5 % 7 for number in range(3, 3 + count)))
        return calls(given, Bounds(most, preferred, 0.0625), run_length)

    assert work(1600) <= 4.5 * work(400)


def calls(given: Waiting, bounds: Bounds, run_length: float) -> int:
    """Of functions, ours and built in."""
    counted = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        alike(given[0], given, bounds, run_length)
    finally:
        sys.setprofile(before)
    return counted
