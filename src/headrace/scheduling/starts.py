"""How long will it wait? From how fast those before it started of late."""

from __future__ import annotations

from collections import deque

LATE = 32
"""Starts that count."""

ENOUGH = 4
"""With fewer nothing is known."""


class Starts:
    """When the last ones left the queue, in one busy period: gaps in which nobody waited say nothing."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=LATE)

    def started(self, now: float, waiting: int) -> None:
        """One started; so many still wait."""
        if not waiting or (self._at and not now >= self._at[-1]):
            self._at.clear()
        else:
            self._at.append(now)

    def wait_s(self, position: int, now: float) -> float | None:
        """Until the one at this position starts, the first being 1; None while that is unknown. Grows while nobody
        starts."""
        at = self._at
        if len(at) < ENOUGH:
            return None
        gap_s = (at[-1] - at[0]) / (len(at) - 1)
        if now - at[-1] > gap_s:
            gap_s = (now - at[0]) / len(at)
        return position * gap_s
