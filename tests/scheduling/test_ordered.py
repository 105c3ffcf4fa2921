"""The policies whose order is fixed when a request joins, and the formula."""

from __future__ import annotations

import pytest

from headrace.scheduling.policies import policy
from headrace.scheduling.policy import Policy, Terms, Ticket
from headrace.scheduling.promises import LONGEST_S
from headrace.scheduling.slo_formula import WINDOW, urgency

INTERACTIVE, STANDARD, BATCH = (
    Terms(level=level) for level in ("interactive", "standard", "batch")
)


def drained(one: Policy, now: float = 0.0) -> str:
    ids = ""
    while (ticket := one.take(now)) is not None:
        ids += ticket.id
    return ids


def test_who_rejoins_has_the_place_of_its_arrival() -> None:
    one = policy("fcfs")
    for id in "abc":
        one.add(Ticket(id, arrived_at=ord(id)), 200.0)
    first = one.take(200.0)
    assert first is not None
    one.began(first, 200.0)
    one.ended(first, 201.0)
    one.add(first, 201.0)
    assert drained(one) == "abc"


@pytest.mark.parametrize("name", ["fcfs", "priority", "edf", "slo-formula"])
def test_a_requests_own_priority_counts_within_bounds(name: str) -> None:
    one = policy(name)
    one.add(Ticket("b", arrived_at=0.0), 0.0)
    one.add(Ticket("a", arrived_at=1.0, priority=-10_000), 1.0)
    one.add(Ticket("c", arrived_at=1e6, priority=-10_000), 1e6)
    assert drained(one, 1e6) == ("bac" if name == "fcfs" else "abc")


def test_a_higher_class_runs_first_until_the_lower_one_has_aged() -> None:
    one = policy("priority", age_s=60)
    one.add(Ticket("d", BATCH, 0.0), 0.0)
    one.add(Ticket("b", STANDARD, 10.0), 10.0)
    one.add(Ticket("a", INTERACTIVE, 60.0), 60.0)
    one.add(Ticket("c", STANDARD, 59.0), 59.0)
    one.add(Ticket("e", INTERACTIVE, 121.0), 121.0)
    one.add(Ticket("f", Terms(level="unknown"), 0.0), 121.0)
    assert drained(one, 121.0) == "abcdef"


def test_a_lower_class_is_pre_empted_where_least_is_lost_and_not_once_it_has_aged() -> None:
    one = policy("priority", age_s=60)
    long, short = Ticket("long", BATCH, 100.0, 5000), Ticket("short", BATCH, 100.0, 10)
    aged = Ticket("aged", BATCH, -100.0, 1)
    running = [Ticket("middle", STANDARD, 100.0, 1), long, short, aged]
    assert one.victim(Ticket("new", INTERACTIVE, 110.0), running, 110.0) is short
    assert one.victim(Ticket("new", STANDARD, 110.0), running[:1], 110.0) is None
    assert one.victim(Ticket("new", INTERACTIVE, 110.0), [aged], 110.0) is None


def test_the_earliest_deadline_is_a_requests_own_or_its_tenants_or_its_classs() -> None:
    one = policy("edf", targets_s={"standard": 20.0})
    one.add(Ticket("d", Terms(level="unknown"), 0.0), 0.0)
    one.add(Ticket("b", Terms(ttft_s=5.0), 3.0), 3.0)
    one.add(Ticket("c", STANDARD, 1.0, deadline=9.0), 1.0)
    one.add(Ticket("a", BATCH, 0.0, deadline=1.0), 0.0)
    assert drained(one) == "abcd"


def test_no_deadline_is_so_far_away_that_nobody_comes_to_it() -> None:
    one = policy("edf")
    one.add(Ticket("a", arrived_at=0.0, deadline=1e11), 0.0)
    one.add(Ticket("b", arrived_at=LONGEST_S, deadline=LONGEST_S + 1), LONGEST_S)
    assert drained(one, LONGEST_S) == "ab"


@pytest.mark.parametrize("name", ["fcfs", "priority", "edf", "slo-formula"])
def test_positions_are_those_in_which_they_run(name: str) -> None:
    one = policy(name)
    for number in range(60):
        level = ("interactive", "standard", "batch")[number % 3]
        terms = Terms(str(number % 7), level=level)
        one.add(Ticket(str(number), terms, float(number * 37 % 60)), 60.0)
    one.remove(next(iter(one)))
    ranked = one.ranked(60.0, 20)
    assert ranked == [one.take(60.0) for _ in range(20)]


@pytest.mark.parametrize(
    ("p99_s", "target_s", "load", "expected"),
    [
        (5.0, 10.0, 0.0, 0.4 / 0.5**2 + 0.5 / 5 + 0.1),
        (5.0, 10.0, 0.9, 0.4 / 0.5**2 + 0.5 / 5 + 0.1 * 0.9),
        (10.0, 10.0, 0.0, 0.4 / 0.1**2 + 0.5 / 10 + 0.1),
        (1000.0, 10.0, 0.0, 0.4 / 0.1**2 + 0.5 / 1000 + 0.1),
    ],
)
def test_the_formula_is_the_one_that_was_given(
    p99_s: float, target_s: float, load: float, expected: float
) -> None:
    assert urgency(p99_s, target_s, load, (0.4, 0.5, 0.1)) == pytest.approx(expected)


def test_under_the_formula_who_is_nearer_to_its_target_comes_first_as_measured_of_late() -> None:
    one = policy("slo-formula")
    near, far = Terms("near", ttft_s=10.0), Terms("far", ttft_s=10.0)
    for latency_s, terms in ((1.0, near), (8.0, far)):
        before = Ticket("before", terms)
        one.add(before, 0.0)
        one.take(0.0)
        for _ in range(WINDOW):
            one.first_token(before, latency_s)
    one.add(Ticket("b", near, 0.0), 10.0)
    one.add(Ticket("a", far, 0.0), 10.0)
    assert drained(one, 10.0) == "ab"
    for _ in range(2 * WINDOW):
        one.first_token(Ticket("after", near), 9.5)
    one.add(Ticket("a", near, 0.0), 10.0)
    one.add(Ticket("b", far, 0.0), 10.0)
    assert drained(one, 10.0) == "ab"
