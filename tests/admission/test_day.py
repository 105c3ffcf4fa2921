"""Budgets of a day, and the journal that keeps them."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import pytest

from headrace.admission.day import DAY_S, DayBudget, DayBudgets
from headrace.admission.usage_journal import UsageJournal, usage_journal_path
from headrace.domain.errors import Code, HeadraceError

DAY = 20_000
NOON = DAY * DAY_S + 43_200


def budget(capacity: int = 1000) -> DayBudget:
    one = DayBudget("tenant:a")
    one.capacity = float(capacity)
    return one


def spend(budgets: DayBudgets, id: str, used: int, wall: float = NOON) -> None:
    one = budgets.budget("tenant:a")
    one.capacity = 1000.0
    one.left(0.0, wall)
    budgets.reserve(id, (one,), 50, 50)
    budgets.settle(id, used)


def opened(path: Path, wall: float = NOON, **options: int) -> DayBudgets:
    budgets = DayBudgets(UsageJournal(path, **options))
    budgets.load(wall)
    return budgets


def left(budgets: DayBudgets, wall: float = NOON) -> float:
    one = budgets.budget("tenant:a")
    one.capacity = 1000.0
    return one.left(0.0, wall)


def test_a_budget_is_new_at_midnight() -> None:
    one = budget()
    one.left(0.0, NOON)
    one.add(DAY, 900)
    assert one.left(0.0, NOON) == 100
    assert one.wait_s(200, 0.0, NOON) == 43_200
    assert one.wait_s(100, 0.0, NOON) == 0
    assert one.left(0.0, NOON + 43_200) == 1000


def test_a_clock_set_back_over_midnight_gives_no_second_budget() -> None:
    one = budget()
    one.left(0.0, NOON)
    one.add(DAY, 900)
    assert one.left(0.0, NOON + DAY_S) == 1000
    one.add(DAY + 1, 300)
    assert one.left(0.0, NOON) == 100
    assert one.left(0.0, NOON + DAY_S) == 700


@pytest.mark.parametrize("odd", [nan, inf, -inf])
def test_a_time_that_is_none_is_no_other_day(odd: float) -> None:
    one = budget()
    one.left(0.0, NOON)
    one.add(DAY, 900)
    assert one.left(0.0, odd) == 100
    assert one.wait_s(200, 0.0, odd) == DAY_S
    assert one.left(0.0, NOON) == 100


def test_what_was_reserved_before_midnight_counts_for_that_day_only() -> None:
    budgets = DayBudgets()
    one = budgets.budget("tenant:a")
    one.capacity = 1000.0
    one.left(0.0, NOON)
    budgets.reserve("gen_1", (one,), 100, 400)
    assert one.left(0.0, NOON + DAY_S) == 1000
    budgets.settle("gen_1", 300)
    assert one.left(0.0, NOON + DAY_S) == 1000
    assert one.left(0.0, NOON) == 700


def test_what_was_used_is_known_to_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    first = opened(path)
    spend(first, "gen_1", 80)
    spend(first, "gen_2", 100)
    spend(first, "gen_3", 130)  # more than was reserved
    # no close: this process was killed
    assert left(opened(path)) == 1000 - 310


def test_a_reservation_stays_until_somebody_says_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    first = opened(path)
    one = first.budget("tenant:a")
    one.left(0.0, NOON)
    first.reserve("gen_1", (one,), 20, 500)
    first.reserve("gen_1", (one,), 7, 0)
    second = opened(path)
    known = second.open["gen_1"]
    assert (known.prompt, known.output) == (27, 500)
    assert left(second) == 1000 - 527
    second.settle("gen_1", 30)
    assert left(second) == 970
    third = opened(path)
    assert left(third) == 970
    assert not third.open


def test_yesterday_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    spend(opened(path), "gen_1", 80)
    assert left(opened(path, NOON + DAY_S), NOON + DAY_S) == 1000
    opened(path, NOON + 3 * DAY_S)
    assert b"tenant:a" not in path.read_bytes()


def test_a_long_journal_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    budgets = opened(path, file_bytes=1000)
    one = budgets.budget("tenant:a")
    one.capacity = 1e9
    one.left(0.0, NOON)
    budgets.reserve("gen_open", (one,), 5, 0)
    for number in range(500):
        budgets.reserve(f"gen_{number}", (one,), 50, 50)
        budgets.settle(f"gen_{number}", 3)
        assert path.stat().st_size <= 1000
    again = opened(path)
    assert left(again) == 1000 - 1505
    assert list(again.open) == ["gen_open"]


def test_a_line_that_was_cut_short_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    spend(opened(path), "gen_1", 80)
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole + b'["r","gen_2",20000,5')
    assert left(opened(path)) == 920
    path.write_bytes(whole + b'["x"]\n[1,2]\n\0\0\0\n"s"\n["s","gen_9"]\n["s","gen_9",5]\n')
    assert left(opened(path)) == 920


def test_a_file_that_is_no_usage_journal_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    path.write_text("something else\n")
    with pytest.raises(HeadraceError, match="no usage journal") as refused:
        opened(path)
    assert refused.value.code is Code.STORE_FAILED
    assert path.read_text() == "something else\n"


def test_what_cannot_be_kept_is_not_let_in_but_counted_when_it_is_over(tmp_path: Path) -> None:
    budgets = opened(tmp_path / "usage", file_bytes=90)
    one = budgets.budget("tenant:a")
    one.capacity = 1000.0
    one.left(0.0, NOON)
    budgets.reserve("gen_1", (one,), 10, 500)
    (tmp_path / "usage.new").mkdir()  # no other file can be made
    with pytest.raises(HeadraceError) as refused:
        budgets.reserve("gen_2", (one,), 10, 10)
    assert refused.value.code is Code.STORE_FAILED
    assert one.left(0.0, NOON) == 490
    budgets.settle("gen_1", 20)
    assert one.left(0.0, NOON) == 980
    (tmp_path / "usage.new").rmdir()
    budgets.reserve("gen_3", (one,), 10, 10)
    assert left(opened(tmp_path / "usage")) == 960


def test_a_closed_journal_is_left_as_it_is(tmp_path: Path) -> None:
    budgets = opened(tmp_path / "usage")
    spend(budgets, "gen_1", 80)
    budgets.close()
    before = (tmp_path / "usage").read_bytes()
    with pytest.raises(HeadraceError):
        spend(budgets, "gen_2", 80)
    assert (tmp_path / "usage").read_bytes() == before


def test_budgets_that_are_unused_are_forgotten() -> None:
    budgets = DayBudgets()
    for number in range(5000):
        one = budgets.budget(f"key:{number}")
        if number % 100 == 0:
            one.left(0.0, NOON if number else NOON - 2 * DAY_S)
            budgets.reserve(f"gen_{number}", (one,), 5, 5)
    budgets.sweep()
    assert len(budgets) == 49
    kept = budgets.budget("key:4900")
    kept.capacity = 100.0
    assert kept.left(0.0, NOON) == 90


def test_it_lies_beside_its_database_and_is_none_of_its_journals(tmp_path: Path) -> None:
    path = usage_journal_path(tmp_path / "headrace.db")
    assert path.parent == tmp_path
    assert not path.match("headrace.db.*.journal")
