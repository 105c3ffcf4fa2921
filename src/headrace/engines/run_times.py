"""Which runs of an engine are done in the event loop itself, and not on a thread.

Handing a run over and its result back takes the loop some 50 µs, and more after a large copy, which leaves nothing of
the code in any cache. So a run that took less is done where it stands. One that took a little more is, too, while
nobody else is served: nobody waits for it then but its own client.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

BRIEF_S = 50e-6
"""Runs that take no longer are done in the loop."""
SHORT_S = 2e-3
"""Runs that take no longer are, while nobody else is served."""
KINDS = 256
"""Kinds of runs whose times are known; with one more, all are measured anew."""
FORGOTTEN = 0.8
"""What is left of a time with each run that took less: a model whose runs are long now and then is not trusted for
dozens of runs."""


class RunTimes:
    """By their kinds, which tell how much there is to do: seconds."""

    def __init__(self) -> None:
        self._times: dict[Hashable, float] = {}

    def may_hold_up(self, kind: Hashable, quiet: Callable[[], bool]) -> bool:
        """Whether the next run of a kind may hold the event loop up. ``quiet``: whether nobody else is served."""
        expected = self._times.get(kind, math.inf)
        return expected <= BRIEF_S or (expected <= SHORT_S and quiet())

    def took(self, kind: Hashable, seconds: float) -> None:
        """A run was over, on whatever thread."""
        known = self._times.get(kind)
        if known is None:
            if len(self._times) >= KINDS:
                self._times.clear()
            known = 0.0
        self._times[kind] = max(seconds, known * FORGOTTEN)
