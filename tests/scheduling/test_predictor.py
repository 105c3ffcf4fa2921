"""The forecast of first tokens."""

from __future__ import annotations

from math import isfinite
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.scheduling.policy import Ticket, make_sane
from headrace.scheduling.predictor import LESSON_S, MOST, PRIOR, REPLICAS, Predictor, Predictors


def test_it_learns_what_tokens_cost() -> None:
    random, one = Random(1), Predictor()
    for _ in range(300):
        size, queued = random.randrange(4000), random.choice([0, 500, 3000])
        took_s = 0.03 + 0.00025 * size + 0.0001 * queued
        one.observe(size, queued, took_s * random.uniform(0.95, 1.05))
    assert one.predict(2000) == pytest.approx(0.53, rel=0.05)
    assert one.predict(2000, 3000) == pytest.approx(0.83, rel=0.05)


def test_it_follows_an_engine_that_becomes_slower() -> None:
    random, one = Random(1), Predictor()
    for slowness in (1, 3):
        for _ in range(200):
            size = random.randrange(4000)
            one.observe(size, 0, slowness * (0.03 + 0.00025 * size))
    assert one.predict(2000) == pytest.approx(1.59, rel=0.1)


def test_one_outlier_teaches_little() -> None:
    one = Predictor()
    for size in range(0, 4000, 40):
        one.observe(size, 0, 0.03 + 0.00025 * size)
    one.observe(2000, 0, 3600.0)
    assert one.predict(2000) < 1.0


def test_equal_prompts_for_a_long_time_do_not_make_it_nervous() -> None:
    one = Predictor()
    for _ in range(20_000):
        one.observe(100, 0, 0.1)
    one.observe(4000, 0, 1.0)
    assert one.predict(100) == pytest.approx(0.1, rel=0.3)


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats()), max_size=50))
def test_no_measurement_makes_it_absurd(seen: list[tuple[float, float, float]]) -> None:
    one = Predictor()
    for size, queued, took_s in seen:
        one.observe(size, queued, took_s)
        assert all(0 <= weight <= most for weight, most in zip(one.weights, MOST, strict=True))
        assert isfinite(one.predict(size, queued))


def sane(ticket: Ticket) -> Ticket:
    make_sane(ticket, 0.0)
    return ticket


def test_replicas_are_told_apart_and_taken_together() -> None:
    all_of_them = Predictors()
    assert all_of_them.prefill_s(1000) == pytest.approx(PRIOR[0] + PRIOR[1])
    now = 0.0
    for number in range(400):
        now += 2 * LESSON_S
        size = 100 * (number % 30)
        for replica, slowness in (("slow", 3), ("fast", 1)):
            ticket = sane(Ticket(str(number), prompt_tokens=size, replica=replica))
            all_of_them.began(ticket, now)
            all_of_them.first_token(ticket, now + slowness * (0.1 + 0.0001 * size))
    assert all_of_them.prefill_s(1000) == pytest.approx(2 * 0.2, rel=0.1)
    assert all_of_them.ahead_s == pytest.approx(0, abs=1e-12)


def test_prompts_under_way_hold_up_a_newcomer_until_they_are_over() -> None:
    one = Predictors()
    tickets = [sane(Ticket(str(n), prompt_tokens=1000 * n, cached_tokens=500)) for n in (1, 2, 3)]
    waits = [one.ahead_s]
    for ticket in tickets:
        one.began(ticket, 0.0)
        waits.append(one.ahead_s)
    assert waits == sorted(set(waits))
    one.first_token(tickets[0], 0.0)
    one.ended(tickets[0])
    one.ended(tickets[1])
    one.ended(tickets[2])
    assert one.ahead_s == pytest.approx(0, abs=1e-12)


def test_replicas_that_come_and_go_are_forgotten() -> None:
    one = Predictors()
    for number in range(10 * REPLICAS):
        ticket = sane(Ticket("a", prompt_tokens=100, replica=str(number)))
        one.began(ticket, 0.0)
        one.first_token(ticket, 1.0)
    assert len(one) == REPLICAS
