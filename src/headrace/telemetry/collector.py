"""The garbage collector, watched and kept away from what lives long.

Rule: what start-up and a model load leave behind is collected once and frozen, so that later
collections walk only what requests made. The collector's thresholds stay Python's own: larger ones
trade many short pauses for few long ones (the tail of the token gap is what counts here).
"""

from __future__ import annotations

import gc
from time import perf_counter

from headrace.telemetry.histogram import PAUSE_S, Histogram

GENERATIONS = 3


class GcWatch:
    """Pauses of the collector by its generation (0, 1, 2), in seconds, while it is installed."""

    def __init__(self) -> None:
        self.pauses = tuple(Histogram(PAUSE_S) for _ in range(GENERATIONS))
        self._began = 0.0

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
        gc.collect()
        gc.freeze()

    def release(self) -> None:
        """A model was unloaded: frozen objects may be garbage now; let it be found, then settle again."""
        gc.unfreeze()
        self.settle()

    def _seen(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.pauses[info["generation"]].observe(perf_counter() - self._began)
