"""The run that is one upstream request, as most are.

Run, stream and what is known of the call are one object, and deltas go straight to the sink: a request
costs what its own bytes cost, not what a fan of several would (:mod:`headrace.engines.fan`).
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.domain.event import FinishReason
from headrace.engines.chunks import ChatFold
from headrace.engines.engine import Run, Sink
from headrace.engines.stream import Stream


class SoloRun(Stream):
    """A run over ``choices`` choices, all from their beginning. ``call`` is cancelled with it."""

    __slots__ = ("_choices", "_on_failure", "_sink", "call")

    def __init__(
        self, sink: Sink, choices: int, live: bool, on_failure: Callable[[HeadraceError], None]
    ) -> None:
        """``on_failure`` is told before the sink is."""
        self.over = False
        self.call: Run | None = None
        self._fold = ChatFold(0)
        self._give = sink.deltas
        self._live = live
        self._sink = sink
        self._choices = choices
        self._on_failure = on_failure

    def cancel(self) -> None:
        self.over = True
        call, self.call = self.call, None
        if call is not None:
            call.cancel()

    def failed(self, error: HeadraceError) -> None:
        if not self.over:
            self.cancel()
            self._on_failure(error)
            self._sink.failed(error)

    def _done(self, deltas: list[Delta]) -> None:
        if not self.over:
            self.over = True
            self.call = None
            fold = self._fold
            seen = fold.reasons
            reasons: tuple[FinishReason, ...] = (seen.get(0, "stop"),)
            if self._choices > 1:
                reasons = tuple(seen.get(index, "stop") for index in range(self._choices))
            self._sink.finished(Outcome(reasons, fold.usage()), deltas)
