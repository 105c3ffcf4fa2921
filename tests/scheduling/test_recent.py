from __future__ import annotations

from headrace.scheduling.recent import HALF_LIFE_S, MOST, Recent


def test_who_has_a_quarter_of_what_another_had_is_light() -> None:
    recent = Recent()
    assert not recent.is_light("a", 1.0, 0.0)
    recent.add("a", 99.0, 0.0)
    assert not recent.is_light("a", 1.0, 0.0)
    recent.add("b", 399.0, 0.0)
    assert not recent.is_light("a", 1.0, 0.0)
    recent.add("b", 1.0, 0.0)
    assert recent.is_light("a", 1.0, 0.0)
    assert not recent.is_light("b", 1.0, 0.0)


def test_half_is_forgotten_in_a_half_life_also_by_a_clock_that_goes_back() -> None:
    recent = Recent()
    recent.add("heavy", 800.0, 0.0)
    recent.add("light", 99.0, HALF_LIFE_S)
    assert recent.is_light("light", 1.0, HALF_LIFE_S)
    assert not recent.is_light("light", 2.0, HALF_LIFE_S)
    assert recent.is_light("light", 1.0, -5.0)


def test_it_remembers_no_more_tenants_than_it_may_and_those_with_most() -> None:
    recent = Recent()
    for number in range(4 * MOST):
        recent.add(str(number), 1.0, 0.0)
        recent.add("heavy", 1.0, 0.0)
    assert len(recent._known) <= MOST
    assert recent.is_light("light", 1.0, 0.0)
    assert not recent.is_light("heavy", 1.0, 0.0)
