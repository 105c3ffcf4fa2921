"""A process for rows of jobs that stands still while others wait for their first tokens on the same processors.

A step of an engine that is busy takes longer than a short prompt does: 65 ms for a token in each of eight slots, half a
second with prompts among them. Who waits for its end, or shares the next, is late by that. So rows have a process of
their own, which the kernel stops wherever it is and lets go on, and whose threads run where no others want to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.engines.engine import Run, Sink, Work
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_options import LlamaOptions

HELD_S = 5.0
GOES_S = 0.25
"""It is held so long at most, and then goes so long, whoever waits: rows go on under any load, if slowly."""

POSSIBLE = sys.platform == "linux"
"""Elsewhere a process that stands still does not notice that its parent died, and no class of threads is idle."""


def _none() -> int:
    return 0


class Still:
    """``pid``: of the process; gives 0 while there is none. ``held_s``, ``goes_s``: by turns, while somebody waits."""

    def __init__(self, held_s: float = HELD_S, goes_s: float = GOES_S) -> None:
        self.pid: Callable[[], int] = _none
        self._held_s = held_s
        self._goes_s = goes_s
        self._awaited = 0
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        """Somebody waits for a first token. Then one :meth:`came` is owed."""
        self._awaited += 1
        if self._awaited == 1:
            self._hold()

    def came(self) -> None:
        """One token came, or will not come."""
        self._awaited -= 1
        if not self._awaited:
            if self._timer is not None:
                self._timer.cancel()
            self._signal(signal.SIGCONT)

    def _hold(self) -> None:
        self._signal(signal.SIGSTOP)
        self._timer = asyncio.get_running_loop().call_later(self._held_s, self._let)

    def _let(self) -> None:
        self._signal(signal.SIGCONT)
        self._timer = asyncio.get_running_loop().call_later(self._goes_s, self._hold)

    def _signal(self, number: int) -> None:
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class LeadingLlama(LlamaEngine):
    """An engine for whose first tokens the process of the rows stands still."""

    def __init__(
        self, options: LlamaOptions, environment: Mapping[str, str], cpus: int, still: Still
    ) -> None:
        super().__init__(options, environment, cpus)
        self._still = still

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        if not self._still.pid():
            return super().stream_infer(work, sink)
        run = AwaitedRun(self._still, sink, work.live)
        run.run = super().stream_infer(work, run)
        return run


class AwaitedRun:
    """Sink of a run, and the run itself to who started it. ``live``: its output is wanted as it comes; else what
    counts is when its prompt is computed."""

    __slots__ = ("_live", "_sink", "_still", "run")

    def __init__(self, still: Still, sink: Sink, live: bool) -> None:
        self._still: Still | None = still
        self._sink = sink
        self._live = live
        self.run: Run | None = None
        still.began()

    def cancel(self) -> None:
        self._came()
        if self.run is not None:
            self.run.cancel()

    def deltas(self, deltas: list[Delta]) -> None:
        if self._still is not None:
            self._came()
        self._sink.deltas(deltas)

    def prefill(self, done: int, total: int) -> None:
        if done >= total and not self._live:
            self._came()
        self._sink.prefill(done, total)

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self._came()
        self._sink.finished(outcome, deltas)

    def failed(self, error: HeadraceError) -> None:
        self._came()
        self._sink.failed(error)

    def _came(self) -> None:
        still, self._still = self._still, None
        if still is not None:
            still.came()
