"""How many requests an upstream can have at once, if it does not say: found by what they take there.

A gradient, as in Gradient2 of Netflix' concurrency-limits (https://github.com/Netflix/concurrency-limits): while
requests take longer than they do when the upstream has few, something queues there and the limit shrinks in
proportion; while they do not, it grows by half the square root of itself. What the upstream refuses shrinks it at once.

Gradient2 compares with a long mean, which rises with the queue that it ought to notice: under steady load its limit
creeps up to the most. So this one compares with what is taken while at most half of the limit is in flight, and
where that never happens by itself it halves the limit for a few requests, as BBR drains its pipe.
"""

from __future__ import annotations

from math import sqrt

TOLERANCE = 1.3
"""How much slower than with half as many is not yet queueing: a larger batch is slower as well."""
SMOOTHING = 0.1
"""Weight of one measurement."""
PATIENCE = 10
"""After so many times its limit in measurements with more than half of it in flight, it is halved; at first it is."""
CALM = 5
"""Measurements that end that."""
BACK_OFF = 0.9


class AdaptiveLimit:
    """``limit``: how many may be in flight, from ``least`` to ``most``."""

    __slots__ = ("_busy_mean", "_calm", "_calm_mean", "_estimate", "_least", "_most", "_since_calm")

    def __init__(self, *, initial: int = 8, least: int = 1, most: int = 512) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError("initial: is not between least and most")
        self._estimate = float(initial)
        self._least = least
        self._most = most
        self._calm_mean = 0.0
        self._busy_mean = 0.0
        self._since_calm = 0
        self._calm = 0

    @property
    def limit(self) -> int:
        probes = not self._calm_mean or self._since_calm > PATIENCE * self._estimate
        return max(int(self._estimate / 2 if probes else self._estimate), self._least)

    def took(self, slowness: float, in_flight: int) -> None:
        """A request with so many in flight: the time to its first token divided by what a prompt of its length
        takes (or any measure that grows when requests queue). What is no such number is left out."""
        if not 0 < slowness < 1e6:
            return
        half = self._estimate / 2
        if in_flight <= max(half, 1.0):
            self._relax(slowness)
        if in_flight > half:
            self._strain(slowness)

    def refused(self) -> None:
        """The upstream had no room for one."""
        self._set(self._estimate * BACK_OFF)

    def _relax(self, slowness: float) -> None:
        self._calm_mean += (slowness - self._calm_mean) * (SMOOTHING if self._calm_mean else 1.0)
        self._calm += 1
        if self._calm >= CALM:
            self._calm = self._since_calm = 0

    def _strain(self, slowness: float) -> None:
        self._since_calm += 1
        self._busy_mean += (slowness - self._busy_mean) * (SMOOTHING if self._busy_mean else 1.0)
        if self._calm_mean:
            gradient = max(0.5, min(1.0, TOLERANCE * self._calm_mean / self._busy_mean))
            wanted = self._estimate * gradient + sqrt(self._estimate) / 2
            self._set(self._estimate + (wanted - self._estimate) * SMOOTHING)

    def _set(self, estimate: float) -> None:
        self._estimate = min(max(estimate, self._least), self._most)
