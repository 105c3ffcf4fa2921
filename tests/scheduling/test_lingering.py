"""An idle engine is held back for clients that come back at once, and never else."""

from __future__ import annotations

import math
import random

import pytest

from headrace.scheduling.lingering import Lingering, RunCost

FIXED_S = 0.004
ROW_S = 0.0005


def took_s(rows: int) -> float:
    return FIXED_S + rows * ROW_S


def after_runs(
    back_s: float, most_s: float = 0.005, runs: int = 20, share: float = 1.0
) -> Lingering:
    """Of 5, 40, 10, … requests, the last of 8 at the time 0, whose clients come back one after the other within
    ``back_s``."""
    lingering = Lingering(most_s)
    for number in range(runs):
        requests = (5, 40, 10, 80)[number % 4]
        ended_at = float(number - runs)
        lingering.ran(requests, requests, took_s(requests), ended_at)
        for at in range(int(share * requests)):
            lingering.arrived(ended_at + back_s * (at + 1) / requests)
    lingering.ran(8, 8, took_s(8), 0.0)
    return lingering


def test_what_a_run_costs_beside_its_rows_is_learned() -> None:
    cost = RunCost()
    chance = random.Random(1)
    for rows in (1, 64, 3, 17, 40) * 10:
        cost.learn(rows, took_s(rows) * chance.uniform(0.95, 1.05))
    assert cost.fixed_s == pytest.approx(FIXED_S, rel=0.25)


def test_runs_of_about_one_size_teach_nothing_and_take_nothing_away() -> None:
    cost = RunCost()
    for rows in (32, 33, 31) * 30:
        cost.learn(rows, took_s(rows) * (1 + rows % 3 / 20))
    assert cost.fixed_s == 0.0
    for rows in (1, 64, 8) * 10:
        cost.learn(rows, took_s(rows))
    for rows in (32, 33, 31) * 30:
        cost.learn(rows, took_s(rows) * (1 + rows % 3 / 20))
    assert cost.fixed_s == pytest.approx(FIXED_S, rel=0.3)


def test_it_is_told_in_rows_as_well() -> None:
    cost, free = RunCost(1 / 64), RunCost()
    assert cost.fixed_rows == 0.0
    for rows in (1, 64, 3, 17, 40) * 10:
        cost.learn(rows, took_s(rows))
        free.learn(rows, FIXED_S)
    assert cost.fixed_rows == pytest.approx(FIXED_S / ROW_S)
    assert free.fixed_rows == math.inf


def test_what_runs_cost_is_forgotten_as_quickly_as_is_wanted() -> None:
    slow, quick = RunCost(1 / 64), RunCost(1 / 4)
    for cost in (slow, quick):
        for rows in (1, 64) * 100:
            cost.learn(rows, took_s(rows))
        for rows in (1, 64) * 5:
            cost.learn(rows, took_s(rows) + FIXED_S)
    assert quick.fixed_s > 1.9 * FIXED_S
    assert slow.fixed_s < 1.2 * FIXED_S


def test_it_waits_for_clients_that_come_back_at_once_until_all_are_there() -> None:
    lingering = after_runs(back_s=0.001)
    assert lingering.until == pytest.approx(FIXED_S / 2, rel=0.1)
    for _ in range(7):
        lingering.arrived(0.0005)
    assert lingering.until > 0.0005
    lingering.arrived(0.001)
    assert lingering.until < 0.0


def test_it_never_waits_longer_than_it_may() -> None:
    assert after_runs(back_s=0.0005, most_s=0.001).until == 0.001


def test_no_wait_is_no_wait() -> None:
    assert after_runs(back_s=0.0, most_s=0.0).until <= 0.0


@pytest.mark.parametrize("back_s", [0.003, 0.02, 0.9])
def test_it_does_not_wait_for_clients_that_take_their_time(back_s: float) -> None:
    assert after_runs(back_s).until < 0.0


def test_it_does_not_wait_for_clients_that_do_not_come_back() -> None:
    assert after_runs(back_s=0.001, share=0.5).until < 0.0


def test_that_some_do_not_come_back_does_not_matter() -> None:
    assert after_runs(back_s=0.001, share=0.8).until > 0.0


def test_it_does_not_wait_before_it_knows() -> None:
    assert after_runs(back_s=0.001, runs=4).until < 0.0


def test_where_runs_cost_no_more_than_their_rows_nothing_is_waited_for() -> None:
    lingering = Lingering(0.005)
    for number in range(40):
        requests = (1, 8, 2, 16)[number % 4]
        lingering.ran(requests, requests, requests * ROW_S, float(number))
        for _ in range(requests):
            lingering.arrived(number + 1e-4)
    lingering.ran(8, 8, 8 * ROW_S, 40.0)
    assert lingering.until <= 40.0 + 1e-6
