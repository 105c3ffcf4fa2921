"""Which rows are padded together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.scheduling.alike import Bounds, Ranked, alike


class Asked(NamedTuple):
    length: int
    rows: int = 1


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
