from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.engines.still import (
    OTHERS_SHIFT_S,
    OWN_SHIFT_S,
    POSSIBLE,
    AwaitedRun,
    Shifts,
    Still,
)

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="only Linux has what it needs")
Run = Callable[[Any], Any]
FOR_EVER = 3600.0


@contextlib.contextmanager
def process() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


class Engine:
    """Of a process; keeps what it is told."""

    def __init__(self, pid: int) -> None:
        self.serving_pid = pid
        self.told: list[bool] = []

    def stands(self, still: bool) -> None:
        self.told.append(still)


def stands(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_process_stands_while_anybody_waits(run: Run, eventually: Any) -> None:
    async def main() -> None:
        with process() as pid:
            still, engine = Still(held_s=FOR_EVER), Engine(pid)
            still.engine = engine
            still.began()
            await eventually(lambda: stands(pid))
            assert engine.told == [True]
            still.began()
            still.came()
            assert stands(pid)
            still.came()
            await eventually(lambda: not stands(pid))
            assert engine.told == [True, False]

    run(main())


def test_it_goes_for_a_moment_now_and_then_whoever_waits(run: Run, eventually: Any) -> None:
    async def main() -> None:
        with process() as pid:
            still = Still(held_s=0.05, goes_s=0.05)
            still.engine = Engine(pid)
            still.began()
            for _ in range(2):
                await eventually(lambda: stands(pid))
                await eventually(lambda: not stands(pid))
            still.came()
            await eventually(lambda: not stands(pid))

    run(main())


def test_several_who_wait_in_turn_hold_it_no_longer_than_one(run: Run, eventually: Any) -> None:
    async def main() -> None:
        with process() as pid:
            still = Still(held_s=0.05, goes_s=FOR_EVER)
            still.engine = Engine(pid)
            still.began()
            await eventually(lambda: stands(pid))
            await eventually(lambda: not stands(pid))
            still.came()
            still.began()
            await eventually(lambda: not stands(pid))
            still.came()

    run(main())


def test_nobody_is_stopped_while_there_is_no_process(run: Run) -> None:
    async def main() -> None:
        still = Still()
        still.began()
        still.came()

    run(main())


def test_when_nobody_waits_only_one_of_two_goes_at_a_time(run: Run, eventually: Any) -> None:
    async def main() -> None:
        with process() as others, process() as own:
            busy = [True]
            shifts = Shifts(held_s=FOR_EVER)
            shifts.engine, shifts.own = Engine(others), Engine(own)
            shifts.both = lambda: bool(busy)
            shifts.began()
            await eventually(lambda: stands(others) and not stands(own))
            shifts.came()
            for _ in range(2):
                await eventually(lambda: stands(own) and not stands(others))
                await eventually(lambda: stands(others) and not stands(own))
            busy.clear()
            await eventually(lambda: not stands(own) and not stands(others))

    run(main())


def test_who_waits_anew_is_not_held_by_a_shift(run: Run, eventually: Any) -> None:
    async def main() -> None:
        with process() as others, process() as own:
            shifts = Shifts(held_s=FOR_EVER)
            shifts.engine, shifts.own = Engine(others), Engine(own)
            shifts.both = lambda: True
            shifts.began()
            shifts.came()
            await eventually(lambda: stands(own))
            shifts.began()
            await eventually(lambda: stands(others) and not stands(own))
            await asyncio.sleep(2 * (OWN_SHIFT_S + OTHERS_SHIFT_S))
            assert stands(others)
            assert not stands(own)

    run(main())


def test_a_shift_of_the_second_is_time_that_the_others_are_held(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("headrace.engines.still.time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def main() -> None:
        shifts = Shifts(held_s=3.0, goes_s=1.5)
        shifts.both = lambda: True
        shifts.began()
        clock[0] += 3.0
        shifts.came()
        for _ in range(10):
            clock[0] += 0.08
            shifts._own_shift()
            clock[0] += 0.04
            shifts._others_shift()
        assert shifts._left_s == pytest.approx(10 * (2 * 0.08 - 0.04))

    run(main())


class Counted(Still):
    """How many are awaited."""

    owed = 0

    def began(self) -> None:
        self.owed += 1

    def came(self) -> None:
        self.owed -= 1


OUTCOME = Outcome(("stop",), Usage())
FAILURE = HeadraceError(Code.ENGINE_FAILED, "it broke")


@pytest.mark.parametrize(
    ("live", "says"),
    [
        (True, lambda run: run.deltas([Delta("a")])),
        (True, lambda run: run.finished(OUTCOME)),
        (True, lambda run: run.failed(FAILURE)),
        (True, lambda run: run.cancel()),
        (False, lambda run: run.prefill(3, 3)),
    ],
)
def test_its_first_token_or_its_end_lets_the_process_go_on_once(
    run: Run, seen: Any, live: bool, says: Callable[[AwaitedRun], None]
) -> None:
    async def main() -> None:
        still = Counted()
        awaited = AwaitedRun([still], seen(), live)
        awaited.prefill(1, 3)
        assert still.owed == 1
        says(awaited)
        assert still.owed == 0
        awaited.cancel()
        assert still.owed == 0

    run(main())


def test_the_computed_prompt_of_who_reads_along_is_no_first_token(run: Run, seen: Any) -> None:
    async def main() -> None:
        still, sink = Counted(), seen()
        awaited = AwaitedRun([still], sink, live=True)
        awaited.prefill(3, 3)
        assert still.owed == 1
        assert sink.prefills == [(3, 3)]

    run(main())
