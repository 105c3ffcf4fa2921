"""The token bucket: it holds ``capacity``, refills at ``per_s`` a second, and what is taken is gone from it at once.

What was reserved and not used comes back, at most up to the capacity; what was used beyond it is owed, and paid
from the refill. So in any time all that was taken, less what came back, is at most the capacity and the refill of
that time. Time comes in, monotonic seconds: one that goes back, or is no number, refills nothing and breaks nothing.
"""

from __future__ import annotations

from math import inf

MARGIN_S = 1e-6
"""Added to a waiting time, so that rounding never makes it too short."""


class Bucket:
    """Full at first. ``name``: which limit it is, ``whose``: for whom, both in words for clients. ``level``: as it was
    when it was last asked what is :meth:`left`; whoever takes from it makes it less."""

    __slots__ = ("_at", "capacity", "level", "name", "per_s", "whose")

    def __init__(self, name: str, whose: str, capacity: float, per_s: float, now: float) -> None:
        self.name = name
        self.whose = whose
        self.capacity = capacity
        self.per_s = per_s
        self.level = capacity
        self._at = now

    def left(self, now: float, wall: float) -> float:
        """What can be taken; below 0 while something is owed."""
        elapsed = now - self._at
        if 0.0 < elapsed < inf:
            level = self.level + elapsed * self.per_s
            self.level = level if level < self.capacity else self.capacity
            self._at = now
        elif -inf < elapsed < 0.0:
            self._at = now
        return self.level

    def give_back(self, amount: int) -> None:
        """Of what was taken; below 0: more was used."""
        level = self.level + amount
        self.level = level if level < self.capacity else self.capacity

    def wait_s(self, amount: float, now: float, wall: float) -> float:
        """Seconds until so much, not more than the capacity, can be taken if nobody else takes anything; 0 for now."""
        missing = amount - self.left(now, wall)
        return missing / self.per_s + MARGIN_S if missing > 0 else 0.0

    def change(self, capacity: float, per_s: float, now: float) -> None:
        """Another limit: what it has more is there at once, what was used stays used."""
        more = capacity - self.capacity
        level = self.left(now, 0.0) + max(more, 0.0)
        self.level = min(level, capacity)
        self.capacity = capacity
        self.per_s = per_s

    def is_full(self, now: float) -> bool:
        """Whether it is as a new one would be."""
        return self.left(now, 0.0) >= self.capacity
