"""What was computed a second time is made good by what is served, and by time in which nobody was charged."""

from __future__ import annotations

import math

from headrace.scheduling.rate import SPARE, Rate

MOST = 1000.0


def busy(one: Rate, *, per_s: float, until: float) -> None:
    """Until then so much was served each second."""
    for tenth in range(int(until * 10) + 1):
        one.served(per_s / 10, tenth / 10)


def test_what_was_spent_before_a_pause_is_made_good_in_it() -> None:
    one = Rate()
    busy(one, per_s=500.0, until=5.0)
    assert one.spend(MOST, MOST, 5.0)
    assert not one.spend(MOST, MOST, 5.1)
    after_s = MOST / (SPARE * 500.0)
    assert not one.spend(MOST, MOST, 5.0 + 0.5 * after_s)
    assert one.spend(MOST, MOST, 5.0 + 1.1 * after_s)
    assert not one.spend(MOST, MOST, 5.0 + 1.1 * after_s)  # a pause counts once


def test_a_pause_counts_once_however_often_is_asked_and_also_where_something_is_served_after_it() -> (
    None
):
    one = Rate()
    busy(one, per_s=500.0, until=5.0)
    assert one.spend(MOST, MOST, 5.0)
    assert not any(one.spend(MOST, MOST, 5.0 + second) for second in range(2, 15))
    one.served(1.0, 20.0)
    assert not one.spend(MOST, MOST, 20.0)
    one.served(1.0, 26.0)
    assert one.spend(MOST, MOST, 26.0)


def test_a_pause_before_the_first_measurement_counts_too() -> None:
    one = Rate()
    assert one.spend(MOST, MOST, 1.0)
    assert not one.spend(MOST, MOST, 2.5)
    assert one.spend(MOST, MOST, 3600.0)


def test_a_clock_that_jumps_forgives_nothing_twice() -> None:
    one = Rate()
    busy(one, per_s=500.0, until=5.0)
    assert one.spend(MOST, MOST, 5.0)
    one.served(1.0, math.nan)
    one.served(1.0, 5.0)
    assert not one.spend(MOST, MOST, 5.1)
    one.served(1.0, -100.0)
    assert not one.spend(MOST, MOST, -99.9)
    one.served(1.0, 100.0)
    assert one.spend(MOST, MOST, 100.0)
