"""A histogram that costs one bisect and two additions.

Written by one thread, read by any: a reader copies ``counts`` in one step of the interpreter, so
what it shows is at most one observation behind, never torn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

TIME_TO_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
INTER_TOKEN_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0,
)  # fmt: skip
REQUEST_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 30.0,
    60.0, 120.0, 240.0, 480.0,
)  # fmt: skip
PAUSE_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Histogram:
    """Observations in seconds by bucket. ``counts[i]`` is how many fell at or below ``bounds[i]`` and
    above the bound before; the last count is for those above every bound."""

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_s = 0.0

    def observe(self, value_s: float) -> None:
        self.counts[bisect_left(self.bounds, value_s)] += 1
        self.total_s += value_s

    def observe_many(self, value_s: float, times: int) -> None:
        """The same value ``times`` times."""
        self.counts[bisect_left(self.bounds, value_s)] += times
        self.total_s += value_s * times

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """``(le, count at or below it)`` for every bucket, as the exposition format has them."""
        edges = [*map(_edge, self.bounds), "+Inf"]
        return list(zip(edges, map(float, accumulate(list(self.counts))), strict=True))

    def quantile(self, q: float) -> float | None:
        """The upper bound of the bucket that holds quantile ``q`` (seconds); the last bound for what
        lies above it. None without observations."""
        counts = list(self.counts)
        seen = sum(counts)
        if not seen:
            return None
        index = bisect_left(list(accumulate(counts)), q * seen)
        return self.bounds[min(index, len(self.bounds) - 1)]


def _edge(bound: float) -> str:
    return str(float(bound))
