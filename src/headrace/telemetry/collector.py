"""The garbage collector, watched and kept away from what lives long.

Rule: what start-up and a model load leave behind is collected once and frozen, so that later
collections walk only what requests made. So is what any full collection leaves: it lives, and thousands
of open streams would otherwise be walked again whenever there are a quarter more of them (with 9,000 that
held everybody up for 0.24 s). Frozen objects are freed like others when nobody refers to them; cycles of
them are looked for when the server rests. The collector's thresholds stay Python's own: larger ones
trade many short pauses for few long ones (the tail of the token gap is what counts here).
"""

from __future__ import annotations

import gc
from time import perf_counter

from headrace.telemetry.histogram import PAUSE_S, Histogram

GENERATIONS = 3
REST_TICKS = 50
"""Ticks (0.1 s each) with nothing to do: the server rests."""
LONGEST_TICKS = 36_000
"""Ticks after which what was frozen is looked through even if the server never rests: once an hour."""


class GcWatch:
    """Pauses of the collector by its generation (0, 1, 2), in seconds, while it is installed."""

    def __init__(self) -> None:
        self.pauses = tuple(Histogram(PAUSE_S) for _ in range(GENERATIONS))
        self._began = 0.0
        self._frozen = False
        self._resting = 0
        self._since = 0

    def install(self) -> None:
        """Begin to measure; idempotent."""
        if self._seen not in gc.callbacks:
            gc.callbacks.append(self._seen)

    def remove(self) -> None:
        """Stop measuring; idempotent."""
        if self._seen in gc.callbacks:
            gc.callbacks.remove(self._seen)

    def settle(self) -> None:
        """Collect, then freeze what is left: call after warm-up and after each model load."""
        frozen_under_load = self._frozen
        gc.collect()
        gc.freeze()
        self._frozen = frozen_under_load  # this collection left nothing that a later one would find

    def release(self) -> None:
        """A model was unloaded: frozen objects may be garbage now; let it be found, then settle again."""
        gc.unfreeze()
        self.settle()

    def rest(self, resting: bool) -> None:
        """Called with every tick: whether nothing is running. After ``REST_TICKS`` of rest, look through what
        was frozen under load."""
        self._resting = self._resting + 1 if resting else 0
        self._since += 1
        if self._frozen and (self._resting == REST_TICKS or self._since >= LONGEST_TICKS):
            self.release()
            self._frozen = False
            self._since = 0

    def _seen(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            generation = info["generation"]
            if generation == GENERATIONS - 1:
                gc.freeze()
                self._frozen = True
            self.pauses[generation].observe(perf_counter() - self._began)
