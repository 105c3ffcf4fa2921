"""How fast is served, while somebody waits."""

from __future__ import annotations

WINDOW_S = 1.0
"""What was served in that, at least, is a measurement; after so long without any it is not one."""

SMOOTHING = 0.1
"""Weight of one measurement."""

SPARE = 0.1
"""Part of what is served that may be computed a second time for somebody's sake."""

UNMEASURED_PER_S = 100.0
"""Weighted tokens a second until one was measured: half of what two cores of a laptop serve."""


class Rate:
    """``per_s``: weighted tokens a second in the mean of late; 0 until one was measured. ``began``: what was begun with
    since, and counts with what is served next."""

    __slots__ = ("_amount", "_last", "_rested_until", "_since", "_spent", "began", "per_s")

    def __init__(self) -> None:
        self.per_s = self.began = 0.0
        self._spent = 0.0
        self._amount = 0.0
        self._since = self._last = self._rested_until = 0.0

    def served(self, amount: float, now: float) -> bool:
        """So much more was; whether ``per_s`` is another now. A clock that goes back begins anew."""
        if self.began:
            amount += self.began
            self.began = 0.0
        if self._spent:
            self._spent = max(self._spent - SPARE * amount, 0.0)
        last, self._last = self._last, now
        if not 0 <= now - last <= WINDOW_S:
            self._rested(last, now)
            self._since, self._amount = now, 0.0
        took_s = now - self._since
        if took_s > 0:  # else it was served before
            self._amount += amount
        if not took_s >= WINDOW_S:
            return False
        measured = self._amount / took_s
        self.per_s += (measured - self.per_s) * (SMOOTHING if self.per_s else 1.0)
        self._since, self._amount = now, 0.0
        return True

    def spend(self, tokens: float, most: float, now: float) -> bool:
        """Whether so many may be computed again: no more than the spare part of what is served, but ``most`` at once
        (or one that is larger, when nothing else was for long)."""
        if now - self._last > WINDOW_S:
            self._rested(self._last, now)
        self._amount += self.began
        self.began = 0.0
        if self._spent and self._spent + tokens > most:
            return False
        self._spent += tokens
        return True

    def _rested(self, since: float, now: float) -> None:
        """Nobody was charged ``since``: whatever was served then went to nobody's cost, and what was spent is made good
        as if it had been as much as of late."""
        rested_s = now - max(since, self._rested_until)
        self._rested_until = now
        if self._spent and rested_s > 0:
            repaid = SPARE * (self.per_s or UNMEASURED_PER_S) * rested_s
            self._spent = max(self._spent - repaid, 0.0)
