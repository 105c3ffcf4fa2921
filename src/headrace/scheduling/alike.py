"""Which of those that wait run together where a run is padded to its longest row.

A run costs something beside its rows, as much as some more elements would: ``run_length`` of them. So few rows a run
cost too much, and so does padding many that are of different lengths. Chosen is the run around the first one that has
least of both a row. Whoever is further from it in length than ``run_length`` is better off in a run of its own. What
the rows of one request differ among themselves is padded in whichever run they are: that is no cost of this one, but
counts in its share of padding.

With n that wait it is O(n log n), and n for each preferred number of rows at most: with some longer ones given, a row
costs less with each shorter one that still comes, so only the last is looked at.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar


class Row(Protocol):
    """What waits. ``length``: of the longest of its rows. ``own_padding``: elements that the others lack to that, all
    together."""

    @property
    def rows(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def own_padding(self) -> int: ...


E = TypeVar("E", bound=Row)
Ranked = tuple[float, int, E]
"""With its rank before it, which no other has."""
Measure = tuple[bool, float, int]
"""How good a run is: less is."""


class Bounds(NamedTuple):
    """``rows``: the most of a run; ``preferred``: numbers of rows that are better than others; ``padding``: the
    largest share of a run that is padding, unless the first's own is more."""

    rows: int
    preferred: Collection[int]
    padding: float


def alike(
    first: Ranked[E], waiting: Iterable[Ranked[E]], bounds: Bounds, run_length: float
) -> list[Ranked[E]]:
    """The run of ``first``, which has the lowest rank of those who wait: it and others, by rank. Of one length the
    lower ranks are taken."""
    own = first[2].length
    near = [one for one in waiting if abs(one[2].length - own) <= run_length]
    longer = sorted([one for one in near if one[2].length >= own], key=_nearest)
    shorter = sorted([one for one in near if one[2].length < own], key=_farthest_last)
    best: Measure = (True, math.inf, 0)
    above, below = 1, 0
    padded = _Padded([one[2] for one in shorter], bounds, run_length)
    for count, (_, _, entry) in enumerate(longer, 1):
        if not padded.grow(entry):
            break
        for more, measure in padded.measures():
            if measure < best:
                best, above, below = measure, count, more
    return sorted([*longer[:above], *shorter[:below]])


class _Padded:
    """A run of rows that come by length, and which of ``shorter`` it may have beside, the first of them first."""

    def __init__(self, shorter: Sequence[Row], bounds: Bounds, run_length: float) -> None:
        self._bounds = bounds
        self._run_length = run_length
        self._preferred = sorted(bounds.preferred)
        self._lengths = [one.length for one in shorter]
        # Of none of the shorter, of the first, of one more: rows, elements if each were as long as its longest row,
        # and what these lack.
        self._more_rows = _sums(one.rows for one in shorter)
        self._more_elements = _sums(one.rows * one.length for one in shorter)
        self._more_lacking = _sums(one.own_padding for one in shorter)
        self._with_rows = {rows: more for more, rows in enumerate(self._more_rows)}
        self._useful = len(shorter)
        self._rows = self._elements = self._lacking = self._longest = 0

    def grow(self, entry: Row) -> bool:
        """By one that is at least as long as all others. Returns whether it fits."""
        self._rows += entry.rows
        self._elements += entry.rows * entry.length
        self._lacking += entry.own_padding
        self._longest = entry.length
        while self._useful and not self._cheaper_with(self._useful - 1):
            self._useful -= 1
        return self._rows <= self._bounds.rows

    def measures(self) -> Iterator[tuple[int, Measure]]:
        """With how many of ``shorter`` it is best, and how good it is then: with the most, and with the most that make
        a preferred number of rows."""
        fitting = bisect_right(self._more_rows, self._bounds.rows - self._rows) - 1
        most = min(fitting, self._useful)
        if self._too_padded(most):
            most = bisect_left(range(most), True, key=self._too_padded) - 1
        if most < 0:
            return
        yield most, self._measure(most)
        for at in range(bisect_right(self._preferred, self._rows + self._more_rows[most]), 0, -1):
            more = self._with_rows.get(self._preferred[at - 1] - self._rows)
            if more is not None and not self._too_padded(more):
                yield more, self._measure(more)
                return

    def _cheaper_with(self, more: int) -> bool:
        """Whether a row costs less with one shorter than with so many. If not, nor does it with those that follow, or
        once this has grown."""
        rows = self._rows + self._more_rows[more]
        elements = self._elements + self._more_elements[more]
        return elements - rows * self._lengths[more] < self._run_length

    def _too_padded(self, more: int) -> bool:
        """If it is with so many, it is with more: they are shorter than all that it has. Only what rows of one request
        lack can make that otherwise; then a run may have a few less than fit."""
        elements = (self._rows + self._more_rows[more]) * self._longest
        lacking = self._lacking + self._more_lacking[more]
        return self._padding(more) + lacking > self._bounds.padding * elements

    def _measure(self, more: int) -> Measure:
        rows = self._rows + self._more_rows[more]
        missed = rows not in self._bounds.preferred
        return missed, (self._run_length + self._padding(more)) / rows, -rows

    def _padding(self, more: int) -> int:
        """That these have only because they run together."""
        rows = self._rows + self._more_rows[more]
        return rows * self._longest - self._elements - self._more_elements[more]


def _sums(numbers: Iterable[int]) -> list[int]:
    return list(accumulate(numbers, initial=0))


def _nearest(one: Ranked[E]) -> tuple[int, float, int]:
    return one[2].length, one[0], one[1]


def _farthest_last(one: Ranked[E]) -> tuple[int, float, int]:
    return -one[2].length, one[0], one[1]
