"""Whether and when a dead engine process is started again: a decider without a clock of its own."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Restart(NamedTuple):
    """Start again after this many seconds."""

    after_s: float


class GiveUp(NamedTuple):
    """Leave it; ``reason`` says how often it died."""

    reason: str


class RestartRules(msgspec.Struct, frozen=True):
    """Pauses grow from ``first_s`` by ``factor`` up to ``longest_s``. More than ``limit`` deaths within
    ``window_s`` are a crash loop. A process that lived ``forget_s`` starts the pauses anew."""

    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 30.0
    limit: int = 5
    window_s: float = 300.0
    forget_s: float = 60.0


class RestartPolicy:
    """Told of every death, says what to do. Times are seconds of any monotonic clock."""

    def __init__(self, rules: RestartRules) -> None:
        self._rules = rules
        self._deaths: list[float] = []
        self._pause_s = rules.first_s

    def died(self, now_s: float, lived_s: float) -> Restart | GiveUp:
        """The process ended at ``now_s`` after having served for ``lived_s`` (0: it never did)."""
        rules = self._rules
        self._deaths = [at for at in self._deaths if now_s - at < rules.window_s] + [now_s]
        if len(self._deaths) > rules.limit:
            return GiveUp(
                f"it ended {len(self._deaths)} times within {rules.window_s:g} s, now since "
            )
        if lived_s >= rules.forget_s:
            self._pause_s = rules.first_s
        after_s = self._pause_s
        self._pause_s = min(self._pause_s * rules.factor, rules.longest_s)
        return Restart(after_s)
