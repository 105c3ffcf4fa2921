"""Which of those that wait run together where a run is padded to its longest row.

A run costs something beside its rows, as much as some more elements would: ``run_length`` of them. So few rows a run
cost too much, and so does padding many that are of different lengths. Chosen is the run around the first one that has
least of both a row. Whoever is further from it in length than ``run_length`` is better off in a run of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar


class Row(Protocol):
    """What waits. ``length``: of each of its rows."""

    @property
    def rows(self) -> int: ...
    @property
    def length(self) -> int: ...


E = TypeVar("E", bound=Row)
Ranked = tuple[float, int, E]
"""With its rank before it, which no other has."""


class Bounds(NamedTuple):
    """``rows``: the most of a run; ``preferred``: numbers of rows that are better than others; ``padding``: the
    largest share of a run that is padding."""

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
    best = (True, math.inf, 0)
    run: tuple[Sequence[Ranked[E]], Sequence[Ranked[E]]] = ((), ())
    padded = _Padded(bounds, run_length)
    for count, (_, _, entry) in enumerate(longer, 1):
        if not padded.grow(entry):
            break
        for more, measure in padded.measures(shorter):
            if measure < best:
                best, run = measure, (longer[:count], shorter[:more])
    return sorted([*run[0], *run[1]])


class _Padded:
    """A run of rows that come by length."""

    def __init__(self, bounds: Bounds, run_length: float) -> None:
        self._bounds = bounds
        self._run_length = run_length
        self._rows = self._elements = self._longest = 0

    def grow(self, entry: Row) -> bool:
        """By one that is at least as long as all others. Returns whether it fits."""
        self._rows += entry.rows
        self._elements += entry.rows * entry.length
        self._longest = entry.length
        return self._rows <= self._bounds.rows

    def measures(
        self, shorter: Sequence[Ranked[E]]
    ) -> Iterable[tuple[int, tuple[bool, float, int]]]:
        """How good it is with none of ``shorter``, with the first, with one more, as long as that can be better: less
        is."""
        rows, elements, longest = self._rows, self._elements, self._longest
        for more in range(len(shorter) + 1):
            if more:
                entry = shorter[more - 1][2]
                spent = self._run_length + rows * longest - elements
                if rows * (longest - entry.length) >= spent:
                    return
                rows += entry.rows
                elements += entry.rows * entry.length
                if rows > self._bounds.rows:
                    return
            padding = rows * longest - elements
            if padding <= self._bounds.padding * rows * longest:
                missed = rows not in self._bounds.preferred
                yield more, (missed, (self._run_length + padding) / rows, -rows)


def _nearest(one: Ranked[E]) -> tuple[int, float, int]:
    return one[2].length, one[0], one[1]


def _farthest_last(one: Ranked[E]) -> tuple[int, float, int]:
    return -one[2].length, one[0], one[1]
