"""Coroutines of tests on a loop of their own, so that one that hangs fails its test and not the suite.

pytest's own limit does not help there: what a signal handler raises while uvloop runs is only logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvloop

LONGEST_S = 50.0
"""Below pytest's own limit, so that a hanging coroutine is cancelled and says where it hung."""
TIDYING_S = 5.0
"""For what it does when it is cancelled, and for the loop to close."""


def run_within(
    coroutine: Coroutine[Any, Any, Any], limit_s: float = LONGEST_S, tidying_s: float = TIDYING_S
) -> Any:
    """Run it on a fresh uvloop. Whatever it started as a process ends with it, if it fails."""

    async def main() -> Any:
        async with asyncio.timeout(limit_s):
            return await coroutine

    before = _children()
    with (
        _late(limit_s + tidying_s, before) as running,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        running.append(runner.get_loop())
        try:
            return runner.run(main())
        except BaseException:
            if ended := _children() - before:
                _end(ended)
                runner.run(_notice())
            raise


@contextlib.contextmanager
def _late(after_s: float, before: set[int]) -> Iterator[list[asyncio.AbstractEventLoop]]:
    """What is not over by then is helped: its processes end, and its tasks are cancelled once more."""
    loops: list[asyncio.AbstractEventLoop] = []

    def cancel_all() -> None:
        for task in asyncio.all_tasks(loops[0]):
            task.cancel()

    def help_out() -> None:
        _end(_children() - before)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loops[0].call_soon_threadsafe(cancel_all)

    timer = threading.Timer(after_s, help_out)
    timer.daemon = True
    timer.start()
    try:
        yield loops
    finally:
        timer.cancel()


def _children() -> set[int]:
    """Processes that this one has started; none where the kernel does not say."""
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, file.read_text().split()))
    return found


def _end(processes: set[int]) -> None:
    """They are dead when this returns; whoever started them can still ask how."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def _notice() -> None:
    """The loop's turns from a signal to what is told of it."""
    for _ in range(5):
        await asyncio.sleep(0)
