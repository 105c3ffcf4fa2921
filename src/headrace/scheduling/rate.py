"""How fast is served, while somebody waits."""

from __future__ import annotations

WINDOW_S = 1.0
"""What was served in that, at least, is a measurement; after so long without any it is not one."""

SMOOTHING = 0.1
"""Weight of one measurement."""


class Rate:
    """``per_s``: weighted tokens a second in the mean of late; 0 until one was measured."""

    __slots__ = ("_amount", "_last", "_since", "per_s")

    def __init__(self) -> None:
        self.per_s = 0.0
        self._amount = 0.0
        self._since = self._last = 0.0

    def served(self, amount: float, now: float) -> None:
        """So much more was. A clock that goes back begins anew."""
        if not 0 <= now - self._last <= WINDOW_S:
            self._since, self._amount = now, 0.0
        self._last = now
        self._amount += amount
        took_s = now - self._since
        if took_s >= WINDOW_S:
            measured = self._amount / took_s
            self.per_s += (measured - self.per_s) * (SMOOTHING if self.per_s else 1.0)
            self._since, self._amount = now, 0.0
