"""A pace: an answer is shown no faster than so many tokens a second, however fast it is computed.

It stands between an engine's run and whoever takes its output, where a tenant has a pace; others have nothing in
their way. What comes too early waits here: engines go on computing when nobody reads them (llama.cpp and vLLM both
do), so nothing is won by not reading them. When the engine is done its slot is free, whatever is still to be shown.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError

MAX_HELD = 8192
"""Deltas that wait in one answer; one more, and the oldest is shown at once."""
TICK_S = 0.01
"""The shortest wait: at a high pace several are shown together."""
SLACK_S = 0.1
"""By how much a stream that was slower than its pace may be ahead of it for a moment."""


class Sink(Protocol):
    """Takes the output of a run."""

    def deltas(self, deltas: list[Delta]) -> None: ...
    def prefill(self, done: int, total: int) -> None: ...
    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None: ...
    def failed(self, error: HeadraceError) -> None: ...


class Run(Protocol):
    def cancel(self) -> None: ...


class Pace:
    """When the next tokens of an answer may be shown. ``unshown``: tokens that were computed and never will be.
    Times are monotonic seconds."""

    __slots__ = ("_due", "_per_s", "unshown")

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._due = now
        self.unshown = 0

    def wait_s(self, tokens: float, now: float) -> float:
        """Seconds until so many may be shown together; 0 for now."""
        wait_s = self._due + (tokens - 1) / self._per_s - now
        return wait_s if wait_s > 0.0 else 0.0

    def shown(self, tokens: float, now: float, slack_s: float) -> None:
        """So many were. What it is behind its pace by more than ``slack_s`` it does not make up for."""
        due = now - slack_s
        self._due = (self._due if self._due > due else due) + tokens / self._per_s


class Paced:
    """Sink of a run, and the run itself to who started it. ``live``: its output comes as it is computed; else all
    comes at the end, and may then be shown when it could have been. ``computed`` is called when the engine is done
    and not all is shown."""

    __slots__ = ("_computed", "_held", "_live", "_outcome", "_run", "_sink", "_timer", "pace")

    def __init__(self, pace: Pace, sink: Sink, live: bool, computed: Callable[[], None]) -> None:
        self.pace = pace
        self._sink: Sink | None = sink
        self._live = live
        self._computed = computed
        self._run: Run | None = None
        self._held: deque[tuple[Delta, float]] = deque()
        self._outcome: Outcome | None = None
        self._timer: asyncio.TimerHandle | None = None

    def of(self, run: Run) -> None:
        """The run that it stands in front of; it may be over already."""
        if self._sink is None:
            run.cancel()
        elif self._outcome is None:
            self._run = run

    def cancel(self) -> None:
        """Stop the run and forget what was not shown. Idempotent."""
        self._sink = None
        self.pace.unshown += int(sum(tokens for _, tokens in self._held))
        self._held.clear()
        run, self._run = self._run, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if run is not None:
            run.cancel()

    def deltas(self, deltas: list[Delta]) -> None:
        self._hold(deltas, 1.0)
        if self._timer is None:
            self._show()

    def prefill(self, done: int, total: int) -> None:
        if self._sink is not None:
            self._sink.prefill(done, total)

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self._run = None
        self._outcome = outcome
        alone = not self._live and len(deltas) > 0
        self._hold(deltas, outcome.usage.completion_tokens / len(deltas) if alone else 1.0)
        if self._timer is None:
            self._show()
        if self._sink is not None:
            self._computed()

    def failed(self, error: HeadraceError) -> None:
        """What it has computed counts, and another run may go on from it at once."""
        sink = self._sink
        held = [delta for delta, _ in self._held]
        self._run = None
        if sink is None:
            return
        if held:
            self._held.clear()
            self.pace.shown(len(held), time.monotonic(), SLACK_S)
            sink.deltas(held)
        if self._sink is not None:
            self.cancel()
            sink.failed(error)

    def _hold(self, deltas: Sequence[Delta], weight: float) -> None:
        held = self._held
        for delta in deltas:
            held.append((delta, max(weight, float(len(delta.token_ids)))))
        if len(held) > MAX_HELD and self._sink is not None:
            early = [held.popleft()[0] for _ in range(len(held) - MAX_HELD)]
            self.pace.shown(len(early), time.monotonic(), SLACK_S)
            self._sink.deltas(early)

    def _show(self) -> None:
        """What is due; then the end, or a timer for what is next."""
        self._timer = None
        now = time.monotonic()
        pace, held = self.pace, self._held
        slack_s = SLACK_S if self._live else now
        due: list[Delta] = []
        wait_s = 0.0
        while held:
            delta, tokens = held[0]
            wait_s = pace.wait_s(tokens, now)
            if wait_s > 0.0:
                break
            held.popleft()
            pace.shown(tokens, now, slack_s)
            due.append(delta)
        sink, outcome = self._sink, self._outcome
        if sink is None:
            return
        if not held and outcome is not None:
            self._sink = None
            sink.finished(outcome, due)
            return
        if due:
            sink.deltas(due)
        if held and self._sink is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(wait_s, TICK_S), self._show)
