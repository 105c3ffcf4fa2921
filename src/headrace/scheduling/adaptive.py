"""How many requests an upstream can have at once, if it does not say: found by what they take there.

A gradient, as in Gradient2 of Netflix' concurrency-limits (https://github.com/Netflix/concurrency-limits): while
requests take longer than they do when the upstream has few, something queues there and the limit shrinks in
proportion; while they do not, it grows a little with each. What the upstream refuses shrinks it at once.

Gradient2 compares with a long mean, which rises with the queue that it ought to notice: under steady load its limit
creeps up to the most. So this one compares with what is taken while at most half of the limit is in flight, and
where requests are slow and that never happens by itself it halves the limit for a few of them, as BBR drains its pipe.

Answers last for minutes, and each has one first token: a limit that grew by a part of a request with each of them would
never let in what comes. So it begins as TCP does, with two more for each first token in time, until some are late.
"""

from __future__ import annotations

from math import sqrt

from headrace.scheduling.predictor import Predictor

TOLERANCE = 1.8
"""How much slower than with half as many is not yet queueing: a larger batch is slower as well."""
SMOOTHING = 0.1
"""Weight of one measurement."""
SLOWEST = 2 * TOLERANCE
"""What is slower by more is late all the same, and no more than that: one of many says little."""
OUTLIER = 2.0
"""What is slower than known by more, while few are in flight, counts as so much slower: others' work may be there."""
FIRST_PATIENCE = 1
MOST_PATIENCE = 10
"""After so many times its limit in slow measurements with more than half of it in flight it is halved: soon at first,
when little is known of what is slow, and twice as late each time."""
CALM = 5
"""Measurements that end that."""
FIRST_GROWTH = 2.0
GROWTH, MOST_GROWTH = 0.05, 0.15
"""With each measurement: the first times the root of the limit."""
WINDOWS = 2.0
"""All that are in flight together tell of the same queue: they shrink the limit by its gradient so often, no more."""
BACK_OFF = 0.9
INITIAL = 8
MOST = 16_384
"""As many connections as the client of an upstream makes."""
LEAST_S = 1e-6


class AdaptiveLimit:
    """``limit``: how many may be in flight, from ``least`` to ``most``."""

    __slots__ = (
        *("_busy_mean", "_calm", "_calm_mean", "_estimate"),
        *("_goal", "_initial", "_least", "_most", "_patience", "_slow"),
    )

    def __init__(self, *, initial: int = INITIAL, least: int = 1, most: int = MOST) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError("initial: is not between least and most")
        self._initial = self._estimate = float(initial)
        self._least = least
        self._most = most
        self._calm_mean = 0.0
        self._busy_mean = 0.0
        self._slow = 0
        self._calm = 0
        self._goal = float(most)
        self._patience = FIRST_PATIENCE

    @property
    def limit(self) -> int:
        probes = self._doubts or not self._calm_mean
        return max(int(self._estimate / 2 if probes else self._estimate), self._least)

    @property
    def _doubts(self) -> bool:
        """Whether what is slow has to be found out anew."""
        return self._slow > self._patience * self._estimate

    @property
    def _few(self) -> float:
        """Half of the limit; of the first one while it doubles, or what queued by then would be few by now."""
        return (min(self._initial, self._estimate) if self._begins else self._estimate) / 2

    @property
    def _begins(self) -> bool:
        """Whether it doubles: up to the first that are late, or to what an upstream had before it refused some."""
        return self._estimate < self._goal

    def is_calm(self, in_flight: int) -> bool:
        """Whether with so many nothing queues, as far as is known."""
        return in_flight <= max(self._few, 1.0)

    def took(self, slowness: float, in_flight: int) -> None:
        """A request with so many in flight: the time to its first token divided by what a prompt of its length
        takes (or any measure that grows when requests queue). What is no such number is left out."""
        if not 0 < slowness < 1e6:
            return
        few = self._few
        if self.is_calm(in_flight):
            self._relax(slowness)
        if in_flight > few:
            self._strain(slowness, in_flight)

    def refused(self, in_flight: int) -> None:
        """The upstream had no room for one, beside so many."""
        self._slow = 0  # that is found out
        self._goal = self._estimate * BACK_OFF
        self._set(min(self._goal, float(in_flight)))

    def _relax(self, slowness: float) -> None:
        known = self._calm_mean
        if known:
            self._calm_mean += (min(slowness, OUTLIER * known) - known) * SMOOTHING
        else:
            self._calm_mean = slowness
        self._calm += 1
        if self._calm >= CALM:
            if self._doubts:
                self._patience = min(2 * self._patience, MOST_PATIENCE)
            self._calm = self._slow = 0

    def _strain(self, slowness: float, in_flight: int) -> None:
        calm = self._calm_mean
        if not calm:
            return
        slowness = min(slowness, SLOWEST * calm)
        known = self._busy_mean or calm  # until something else is known, nothing queues
        self._busy_mean = known + (slowness - known) * SMOOTHING
        estimate = self._estimate
        gradient = min(1.0, TOLERANCE * calm / self._busy_mean)
        if gradient < 1.0:
            self._slow += 1
            self._goal = 0.0
        if self._begins:
            grows = min(FIRST_GROWTH, self._goal - estimate)
        else:
            grows = min(sqrt(estimate) * GROWTH, MOST_GROWTH)
        if in_flight <= estimate / 2:
            grows = 0.0  # it is not the limit that kept others out
        shrinks = (1.0 - gradient) * estimate * min(SMOOTHING, WINDOWS / estimate)
        self._set(estimate + grows - shrinks)

    def _set(self, estimate: float) -> None:
        self._estimate = min(max(estimate, self._least), self._most)


class UpstreamLimit:
    """:class:`AdaptiveLimit` of an upstream whose prompts differ: their times are compared with what theirs should
    be, which is learnt while few are in flight. ``limit``: how many may be."""

    __slots__ = ("_adaptive", "_predictor", "_typical_s")

    def __init__(self) -> None:
        self._adaptive = AdaptiveLimit()
        self._predictor = Predictor()
        self._typical_s = 0.0

    @property
    def limit(self) -> int:
        return self._adaptive.limit

    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None:
        """The first token of a prompt so long came after so many seconds; ``in_flight``: requests that the upstream
        had when it began, it among them."""
        if self._adaptive.is_calm(in_flight):
            self._learn(prompt_tokens, took_s)
        self._adaptive.took(took_s / self._expected_s(prompt_tokens), in_flight)

    def _learn(self, prompt_tokens: float, took_s: float) -> None:
        if self._typical_s:
            took_s = min(took_s, OUTLIER * self._expected_s(prompt_tokens))
            self._typical_s += (took_s - self._typical_s) * SMOOTHING
        else:
            self._typical_s = took_s
        self._predictor.observe(prompt_tokens, 0.0, took_s)

    def _expected_s(self, prompt_tokens: float) -> float:
        """Few prompts teach little of short ones: those are not expected much sooner than others came."""
        return max(self._predictor.predict(prompt_tokens), self._typical_s / 2, LEAST_S)

    def refused(self, in_flight: int) -> None:
        """The upstream had no room for one, beside so many."""
        self._adaptive.refused(in_flight)
