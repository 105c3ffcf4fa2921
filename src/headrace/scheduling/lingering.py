"""Is it worth to hold an idle engine back for more requests?

Clients that ask again as soon as they have their answers would else run in two groups by turns: one is computed, the
other waits, and each run costs something beside its rows. Held back for a moment when a run is over, the engine has
both groups in one run. It pays if those who were answered come back within half of what a run costs beside its rows.
Requests that come by chance never do: as many as a run had come in the time of a run, which is more. So nobody waits
for them, nor for a single client.

A plain synchronous decider: times come in, in monotonic seconds.
"""

from __future__ import annotations

import math

MEMORY = 1.0 / 16.0
"""Weight of the newest run, for what runs cost."""
RECENT = 1.0 / 8.0
"""The same, for whether clients come back."""
QUORUM = 0.75
"""Share of a run's clients that tells that they come back; and of the last runs, that one can count on it."""
SPREAD = 0.25
"""Deviation of the runs' rows, of their mean, that tells what a row costs in spite of times that vary."""


class RunCost:
    """What a run costs beside its rows: the intercept of its seconds over its rows, over the last runs. While all have
    about equally many rows, what was known before holds; ``fixed_s`` is 0 at first. ``memory``: weight of the newest
    run."""

    __slots__ = (
        "_memory",
        "_row_s",
        "_rows",
        "_rows_s",
        "_rows_squared",
        "_s",
        "_weight",
        "fixed_s",
    )

    def __init__(self, memory: float = MEMORY) -> None:
        self._memory = memory
        self._weight = self._rows = self._s = self._rows_squared = self._rows_s = 0.0
        self.fixed_s = self._row_s = 0.0

    @property
    def fixed_rows(self) -> float:
        """The same as a number of rows that take as long; infinite where rows cost nothing."""
        if not self.fixed_s:
            return 0.0
        return self.fixed_s / self._row_s if self._row_s else math.inf

    def learn(self, rows: int, took_s: float) -> None:
        """A run of so many rows took so long."""
        memory = self._memory
        keep = 1.0 - memory
        self._weight = weight = keep * self._weight + memory
        self._rows = keep * self._rows + memory * rows
        self._s = keep * self._s + memory * took_s
        self._rows_squared = keep * self._rows_squared + memory * rows * rows
        self._rows_s = keep * self._rows_s + memory * rows * took_s
        mean, mean_s = self._rows / weight, self._s / weight
        variance = self._rows_squared / weight - mean * mean
        if variance > (SPREAD * mean) ** 2:
            self._row_s = max(0.0, (self._rows_s / weight - mean * mean_s) / variance)
            self.fixed_s = max(0.0, mean_s - self._row_s * mean)


class Lingering:
    """``most_s``: an idle engine is held back no longer; 0: never."""

    __slots__ = ("_back", "_came", "_cost", "_ended_at", "_most_s", "_quorum", "_requests")

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._cost = RunCost()
        self._ended_at = -math.inf
        self._requests = self._quorum = 0
        self._came = 0
        self._back = 0.0
        """After how many of the last runs their clients came back in time."""

    def arrived(self, now: float) -> None:
        """A request came."""
        self._came += 1
        if self._came == self._quorum:
            self._note(now <= self._ended_at + self._worth_s)

    def ran(self, requests: int, rows: int, took_s: float, now: float) -> None:
        """A run is over: its clients may come back."""
        if self._came < self._quorum:
            self._note(False)
        self._cost.learn(rows, took_s)
        self._ended_at = now
        self._requests = requests
        self._quorum = math.ceil(QUORUM * requests)
        self._came = 0

    @property
    def until(self) -> float:
        """Until when the engine is held back, were nobody else to come. In the past: it starts now."""
        if self._came >= self._requests or self._back < QUORUM:
            return -math.inf
        return self._ended_at + self._worth_s

    @property
    def _worth_s(self) -> float:
        return min(self._cost.fixed_s / 2.0, self._most_s)

    def _note(self, back: bool) -> None:
        self._back += RECENT * (back - self._back)
