"""A histogram that costs one bisect and two additions.

Written by one thread, read by any: a reader copies ``counts`` in one step of the interpreter, so
what it shows is at most one observation behind, never torn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from operator import add
from typing import NamedTuple

TIME_TO_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
INTER_TOKEN_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0,
)  # fmt: skip
GEN_AI_FIRST_TOKEN_S = TIME_TO_FIRST_TOKEN_S[:16]
GEN_AI_PER_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
GEN_AI_REQUEST_S = tuple(0.01 * 2**power for power in range(14))
GEN_AI_TOKENS = tuple(4**power for power in range(14))
"""The buckets that OpenTelemetry wants. Those of times are also bounds of what is counted for the vLLM names, so
that one observation serves both."""
REQUEST_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 30.0,
    60.0, 120.0, 240.0, 480.0,
)  # fmt: skip
BOTH_REQUEST_S = tuple(sorted({*REQUEST_S, *GEN_AI_REQUEST_S}))
PAUSE_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Exemplar(NamedTuple):
    """A trace and its span, which ended at ``time`` (Unix seconds) and of which ``value`` was observed."""

    trace_id: int
    span_id: int
    time: float
    value: float = 0.0


Bucket = tuple[float, int, Exemplar | None]
"""Its upper bound (the last one's is infinite), how many observations are at or below it, its newest exemplar."""


class Histogram:
    """Observations in seconds by bucket. ``counts[i]`` is how many fell at or below ``bounds[i]`` and
    above the bound before; the last count is for those above every bound. ``exemplars``: the newest by bucket,
    where there are traces."""

    __slots__ = ("bounds", "counts", "exemplars", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.exemplars: dict[int, Exemplar] = {}
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_s = 0.0

    @classmethod
    def merged(cls, bounds: Sequence[float], parts: Sequence[Histogram]) -> Histogram:
        """What several with the same bounds have observed together, until now."""
        whole = cls(bounds)
        for part in parts:
            whole.counts = list(map(add, whole.counts, part.counts))
            whole.total_s += part.total_s
            for bucket, exemplar in part.exemplars.copy().items():
                known = whole.exemplars.get(bucket)
                if known is None or known.time < exemplar.time:
                    whole.exemplars[bucket] = exemplar
        return whole

    def observe(self, value_s: float) -> None:
        self.counts[bisect_left(self.bounds, value_s)] += 1
        self.total_s += value_s

    def observe_many(self, value_s: float, times: int) -> None:
        """The same value ``times`` times."""
        self.counts[bisect_left(self.bounds, value_s)] += times
        self.total_s += value_s * times

    def exemplify(self, exemplar: Exemplar) -> None:
        """Its value was observed: lead from its bucket to its trace."""
        self.exemplars[bisect_left(self.bounds, exemplar.value)] = exemplar

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self, bounds: Sequence[float] | None = None) -> Iterator[Bucket]:
        """All buckets, or only those that end at ``bounds``, which are some of ours."""
        wanted = self.bounds if bounds is None else bounds
        below = list(accumulate(list(self.counts)))
        exemplars = sorted(self.exemplars.copy().items())
        start = 0
        for bound in (*wanted, inf):
            end = bisect_left(self.bounds, bound)
            inside = [exemplar for index, exemplar in exemplars if start <= index <= end]
            newest = max(inside, key=lambda exemplar: exemplar.time, default=None)
            yield bound, below[end], newest
            start = end + 1

    def quantile(self, q: float) -> float | None:
        """The upper bound of the bucket that holds quantile ``q`` (seconds); the last bound for what
        lies above it. None without observations."""
        counts = list(self.counts)
        seen = sum(counts)
        if not seen:
            return None
        index = bisect_left(list(accumulate(counts)), q * seen)
        return self.bounds[min(index, len(self.bounds) - 1)]
