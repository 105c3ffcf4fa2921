"""A token bucket: what it gives, what it takes back, and that no clock breaks it."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.admission.bucket import Bucket
from headrace.admission.gate import Gate


def bucket(capacity: float = 60.0, per_s: float = 1.0) -> Bucket:
    return Bucket("tenant.tokens_per_minute", "tenant a", capacity, per_s, 0.0)


def test_it_is_full_at_first_and_refills_up_to_its_capacity() -> None:
    one = bucket()
    one.level -= 50
    assert one.left(0.0, 0.0) == 10
    assert one.left(20.0, 0.0) == 30
    assert one.left(1000.0, 0.0) == 60


def test_what_was_not_used_comes_back_and_what_was_used_beyond_is_owed() -> None:
    one = bucket()
    one.level -= 50
    one.give_back(45)
    assert one.left(0.0, 0.0) == 55
    one.level -= 55
    one.give_back(-10)
    assert one.left(0.0, 0.0) == -10
    assert one.wait_s(1, 0.0, 0.0) == pytest.approx(11.0)


def test_what_comes_back_never_makes_it_more_than_full() -> None:
    one = bucket()
    one.level -= 50
    assert one.left(60.0, 0.0) == 60
    one.give_back(50)
    assert one.left(60.0, 0.0) == 60


def test_a_clock_that_goes_back_refills_nothing_and_stops_nothing() -> None:
    one = bucket()
    one.left(1000.0, 0.0)
    one.level -= 60
    assert one.left(0.0, 0.0) == 0
    assert one.left(5.0, 0.0) == 5


@pytest.mark.parametrize("odd", [nan, inf, -inf])
def test_a_time_that_is_none_breaks_nothing(odd: float) -> None:
    one = bucket()
    one.level -= 60
    assert one.left(odd, 0.0) == 0
    assert one.left(10.0, 0.0) == 10
    assert one.left(odd, 0.0) == 10
    assert one.left(15.0, 0.0) == 15


def test_another_limit_adds_what_it_has_more_and_keeps_what_was_used() -> None:
    one = bucket()
    one.level -= 50
    one.change(100.0, 2.0, 0.0)
    assert one.left(0.0, 0.0) == 50
    one.change(20.0, 2.0, 0.0)
    assert one.left(0.0, 0.0) == 20
    one.level -= 20
    assert one.left(5.0, 0.0) == 10


@given(
    st.integers(1, 10**9),
    st.floats(1e-3, 1e7),
    st.floats(0, 1e7),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_the_waiting_time_is_long_enough_and_not_one_percent_too_long(
    capacity: int, per_s: float, now: float, used: float, wanted: float
) -> None:
    one = Bucket("", "", float(capacity), per_s, now)
    one.level -= int(capacity * used)
    amount = max(1, int(capacity * wanted))
    wait_s = one.wait_s(amount, now, 0.0)
    if wait_s == 0.0:
        assert one.left(now, 0.0) >= amount
        return
    if wait_s > 0.001:
        assert one.left(now + wait_s * 0.99, 0.0) < amount
    assert one.left(now + wait_s, 0.0) >= amount


def test_a_gate_learns_how_long_its_guests_stay() -> None:
    gate = Gate("tenant a", 4)
    for _ in range(200):
        gate.running = 4
        gate.leave(20.0)
    gate.running = 4
    assert gate.wait_s() == pytest.approx(5.0, rel=0.01)
    for odd in (nan, inf, -5.0):
        gate.running = 4
        gate.leave(odd)
    gate.running = 4
    assert gate.wait_s() == pytest.approx(5.0, rel=0.01)
