"""Which runs are done in the event loop."""

from __future__ import annotations

from headrace.engines.run_times import BRIEF_S, KINDS, SHORT_S, RunTimes


def always() -> bool:
    return True


def never() -> bool:
    return False


def test_what_was_never_run_goes_to_a_thread() -> None:
    assert not RunTimes().may_hold_up("a", always)


def test_a_brief_run_is_done_where_it_stands_whoever_else_is_served() -> None:
    times = RunTimes()
    times.took("a", BRIEF_S)
    assert times.may_hold_up("a", never)
    assert not times.may_hold_up("b", always)


def test_a_short_run_only_while_nobody_else_is_served() -> None:
    times = RunTimes()
    times.took("a", SHORT_S)
    assert times.may_hold_up("a", always)
    assert not times.may_hold_up("a", never)
    times.took("a", 2 * SHORT_S)
    assert not times.may_hold_up("a", always)


def test_a_long_run_among_short_ones_is_remembered_for_dozens() -> None:
    times = RunTimes()
    times.took("a", 10.0)
    runs = 0
    while not times.may_hold_up("a", always):
        times.took("a", BRIEF_S)
        runs += 1
    assert 24 < runs < 100


def test_kinds_are_bounded() -> None:
    times = RunTimes()
    for kind in range(KINDS + 1):
        times.took(kind, 0.0)
    assert times.may_hold_up(KINDS, always)
    assert not times.may_hold_up(0, always)
