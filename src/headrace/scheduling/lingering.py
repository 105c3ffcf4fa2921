"""Is it worth to hold an idle engine back for more rows?

Each run costs something whatever its rows are; rows that come in time share it. So an engine is held back only while
several more rows are expected within the time that a run of their own would cost. Requests that come one by one, or
spread over time, are never held back; a burst is: clients that ask again as soon as they have their answers.

A plain synchronous decider: times come in, in monotonic seconds.
"""

from __future__ import annotations

import math

MEMORY = 1.0 / 16.0
"""Weight of the newest arrival and of the newest run."""

BREAK = 4.0
"""A burst is over when nobody came for so many of its gaps: for arrivals by chance that is 1 in 50."""

TICK_S = 0.001
"""Of the event loop's timers: what saves less is not waited for."""


class RunCost:
    """What a run costs beside its rows: the intercept of its seconds over its rows, over the last few runs. While all
    runs have equally many rows nobody knows, and 0 is said."""

    __slots__ = ("_rows", "_rows_s", "_rows_squared", "_s", "_weight")

    def __init__(self) -> None:
        self._weight = self._rows = self._s = self._rows_squared = self._rows_s = 0.0

    def learn(self, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""
        keep = 1.0 - MEMORY
        self._weight = keep * self._weight + MEMORY
        self._rows = keep * self._rows + MEMORY * rows
        self._s = keep * self._s + MEMORY * took_s
        self._rows_squared = keep * self._rows_squared + MEMORY * rows * rows
        self._rows_s = keep * self._rows_s + MEMORY * rows * took_s

    @property
    def fixed_s(self) -> float:
        """Seconds, 0 while unknown."""
        weight = self._weight
        if not weight:
            return 0.0
        rows, took_s = self._rows / weight, self._s / weight
        spread = self._rows_squared / weight - rows * rows
        if spread < 0.25:
            return 0.0
        slope = (self._rows_s / weight - rows * took_s) / spread
        return max(0.0, took_s - max(0.0, slope) * rows)


class Lingering:
    """``most_s``: how long nobody waits for more than that; 0: nobody waits."""

    __slots__ = ("_arrived_at", "_cost", "_ended_at", "_fixed_s", "_gap_s", "_most_s")

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._gap_s = most_s
        self._arrived_at = self._ended_at = -math.inf
        self._cost = RunCost()
        self._fixed_s = 0.0

    def arrived(self, now: float) -> None:
        """A request came. Gaps beyond ``most_s`` say that nobody came in time, no more."""
        gap_s = now - self._arrived_at
        self._arrived_at = now
        if not 0.0 <= gap_s < self._most_s:
            gap_s = self._most_s
        self._gap_s += MEMORY * (gap_s - self._gap_s)

    def ran(self, rows: int, took_s: float, now: float) -> None:
        """A run is over: its clients may come back."""
        self._ended_at = now
        self._cost.learn(rows, took_s)
        self._fixed_s = self._cost.fixed_s

    def until(self, since: float) -> float:
        """Until when the engine is held back, were nobody else to come; not beyond ``most_s`` after ``since``, when the
        first one came. In the past: it starts now."""
        pause_s = BREAK * self._gap_s
        fixed_s = self._fixed_s
        if fixed_s < TICK_S or pause_s > fixed_s:
            return -math.inf
        burst_over = max(self._arrived_at + max(pause_s, TICK_S), self._ended_at + fixed_s)
        return min(burst_over, since + self._most_s)
