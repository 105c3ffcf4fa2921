"""A process that stands still while others wait for their first tokens on the same processors.

A step of an engine that is busy takes longer than a short prompt does: 65 ms for a token in each of eight slots, half a
second with prompts among them. Who waits for its end, or shares the next, is late by that. So rows of jobs have a
process of their own, whose threads run where no others want to, and those who are pressed while others have the slots
have one as well; the kernel stops the others wherever they are and lets them go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.engines.engine import Run, Sink, Work
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_options import LlamaOptions

HELD_S = 5.0
GOES_S = 0.25
"""Rows are held so long at most, and then go so long, whoever waits: they go on under any load, if slowly."""
OTHERS_HELD_S = 3.0
OTHERS_GO_S = 1.5
"""The same of the engine of who has more than its share: it has a third of the time at least."""
OWN_SHIFT_S = 0.08
OTHERS_SHIFT_S = 0.04
"""When nobody waits any more, and both have answers under way."""

POSSIBLE = sys.platform == "linux"
"""Elsewhere a process that stands still does not notice that its parent died, and no class of threads is idle."""


class Stopped(Protocol):
    """Whose process is stopped, 0 while none serves. It hears when: nobody is to blame for silence then."""

    @property
    def serving_pid(self) -> int: ...
    def stands(self, still: bool) -> None: ...


class Still:
    """``held_s``, ``goes_s``: by turns, while somebody waits; several who wait one after the other get no more."""

    def __init__(self, held_s: float = HELD_S, goes_s: float = GOES_S) -> None:
        self.engine: Stopped | None = None
        self._held_s = held_s
        self._goes_s = goes_s
        self._awaited = 0
        self._timer: asyncio.TimerHandle | None = None
        self._held = False
        self._left_s = held_s
        self._since = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process; 0 while none serves."""
        return 0 if self.engine is None else self.engine.serving_pid

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
            self._go()

    def _hold(self) -> None:
        """For what is left; it comes back while the process goes."""
        self._stop()
        self._timer = asyncio.get_running_loop().call_later(self._left_s, self._let)

    def _let(self) -> None:
        self._go()
        self._timer = asyncio.get_running_loop().call_later(self._goes_s, self._hold)

    def _stop(self) -> None:
        self._count()
        self._held = True
        self._signal(signal.SIGSTOP)

    def _go(self) -> None:
        self._count()
        self._held = False
        self._signal(signal.SIGCONT)

    def _count(self) -> None:
        """How long it was held, or went."""
        now = time.monotonic()
        took_s = now - self._since
        self._since = now
        if self._held:
            self._left_s = max(self._left_s - took_s, 0.0)
        else:
            more_s = took_s * self._held_s / self._goes_s
            self._left_s = min(self._left_s + more_s, self._held_s)

    def _signal(self, number: int) -> None:
        _send(self.engine, number)


def _send(engine: Stopped | None, number: int) -> None:
    if engine is None or not (pid := engine.serving_pid):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    engine.stands(number == signal.SIGSTOP)


class Shifts(Still):
    """Also when nobody waits any more only one of two processes goes, each in its shift, while both have answers under
    way: threads of one that computes wait for each other, and where two have the same processors mostly in vain.
    ``own``: the second, whose first tokens are waited for; ``both``: whether both have something to do."""

    def __init__(self, held_s: float = OTHERS_HELD_S, goes_s: float = OTHERS_GO_S) -> None:
        super().__init__(held_s, goes_s)
        self.own: Stopped | None = None
        self.both: Callable[[], bool] = bool
        self._shift: asyncio.TimerHandle | None = None

    def began(self) -> None:
        if self._shift is not None:
            self._shift.cancel()
            self._shift = None
            _send(self.own, signal.SIGCONT)
        super().began()

    def came(self) -> None:
        super().came()
        if not self._awaited:
            self._others_shift()

    def _others_shift(self) -> None:
        self._shift = None
        self._go()
        if self.both():
            _send(self.own, signal.SIGSTOP)
            self._next(OTHERS_SHIFT_S, self._own_shift)

    def _own_shift(self) -> None:
        _send(self.own, signal.SIGCONT)
        self._shift = None
        if self.both():
            self._stop()
            self._next(OWN_SHIFT_S, self._others_shift)

    def _next(self, in_s: float, then: Callable[[], None]) -> None:
        self._shift = asyncio.get_running_loop().call_later(in_s, then)


Others = Sequence[Still]


class LeadingLlama(LlamaEngine):
    """An engine for whose first tokens other processes stand still."""

    def __init__(
        self, options: LlamaOptions, environment: Mapping[str, str], cpus: int, others: Others
    ) -> None:
        super().__init__(options, environment, cpus)
        self._others = others

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        others = [one for one in self._others if one.pid]
        if not others:
            return super().stream_infer(work, sink)
        run = AwaitedRun(others, sink, work.live)
        run.run = super().stream_infer(work, run)
        return run


class AwaitedRun:
    """Sink of a run, and the run itself to who started it. ``live``: its output is wanted as it comes; else what
    counts is when its prompt is computed."""

    __slots__ = ("_live", "_others", "_sink", "run")

    def __init__(self, others: Others, sink: Sink, live: bool) -> None:
        self._others = others
        self._sink = sink
        self._live = live
        self.run: Run | None = None
        for one in others:
            one.began()

    def cancel(self) -> None:
        self._came()
        if self.run is not None:
            self.run.cancel()

    def deltas(self, deltas: list[Delta]) -> None:
        if self._others:
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
        others, self._others = self._others, ()
        for one in others:
            one.came()
