"""An idle engine is held back in a burst, and never else."""

from __future__ import annotations

import pytest

from headrace.scheduling.lingering import Lingering, RunCost

FIXED_S = 0.004
ROW_S = 0.0005


def learned(most_s: float = 0.005) -> Lingering:
    """It knows what a run costs."""
    lingering = Lingering(most_s)
    for rows in (1, 8, 2, 32, 5, 16) * 4:
        lingering.ran(rows, FIXED_S + rows * ROW_S, now=0.0)
    return lingering


def come(lingering: Lingering, gap_s: float, count: int = 100, start: float = 10.0) -> float:
    """So many, one each ``gap_s``; when the last one came."""
    for number in range(count):
        lingering.arrived(start + number * gap_s)
    return start + (count - 1) * gap_s


def test_what_a_run_costs_beside_its_rows_is_learned() -> None:
    cost = RunCost()
    for rows in (1, 64, 3, 17, 40) * 10:
        cost.learn(rows, FIXED_S + rows * ROW_S)
    assert cost.fixed_s == pytest.approx(FIXED_S, rel=1e-6)


def test_nobody_knows_it_from_runs_of_one_size() -> None:
    cost = RunCost()
    assert cost.fixed_s == 0.0
    for _ in range(20):
        cost.learn(8, 0.01)
    assert cost.fixed_s == 0.0


def test_a_burst_holds_it_back_until_it_pauses() -> None:
    lingering = learned()
    last = come(lingering, 0.0001)
    until = lingering.until(since=last)
    assert last < until <= last + 0.0025


def test_it_is_never_held_back_beyond_the_longest_wait_of_the_first() -> None:
    lingering = learned()
    last = come(lingering, 0.0001)
    assert lingering.until(since=last - 0.0045) == pytest.approx(last + 0.0005)


@pytest.mark.parametrize("gap_s", [0.002, 0.05, 10.0])
def test_requests_that_are_spread_over_time_are_not_waited_for(gap_s: float) -> None:
    lingering = learned()
    last = come(lingering, gap_s)
    assert lingering.until(since=last) < last


def test_the_first_requests_of_all_find_it_ready() -> None:
    lingering = learned()
    lingering.arrived(10.0)
    assert lingering.until(since=10.0) < 10.0


def test_where_runs_cost_no_more_than_their_rows_nothing_is_waited_for() -> None:
    lingering = Lingering(0.005)
    for rows in (1, 8, 2, 32) * 4:
        lingering.ran(rows, rows * ROW_S, now=0.0)
    last = come(lingering, 0.0001)
    assert lingering.until(since=last) < last


def test_who_has_an_answer_may_ask_again() -> None:
    lingering = learned()
    last = come(lingering, 0.0001)
    lingering.ran(8, FIXED_S + 8 * ROW_S, now=last + 0.1)
    assert lingering.until(since=last + 0.1) > last + 0.1


def test_no_wait_is_no_wait() -> None:
    lingering = learned(most_s=0.0)
    last = come(lingering, 0.0001)
    assert not lingering.until(since=last) > last
