"""A test that is out of time fails, whatever it has left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from tests.looping import run_within

SLEEPS = (sys.executable, "-c", "import time; time.sleep(1000)")


def test_no_process_outlives_a_coroutine_that_is_out_of_time() -> None:
    started: list[asyncio.subprocess.Process] = []

    async def main() -> None:
        started.append(await asyncio.create_subprocess_exec(*SLEEPS))
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run_within(main(), 0.2)
    with contextlib.suppress(ChildProcessError):  # uvloop has noticed it
        assert os.WTERMSIG(os.waitpid(started[0].pid, 0)[1]) == signal.SIGKILL


def test_a_coroutine_that_hangs_while_it_tidies_up_is_ended_too() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(*SLEEPS)
        try:
            await asyncio.Event().wait()
        finally:
            await process.wait()
            await asyncio.Event().wait()

    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        run_within(main(), 0.1, 0.1)


def test_what_it_returns_and_raises_is_its_own() -> None:
    async def give() -> int:
        return 7

    async def fail() -> None:
        raise KeyError

    assert run_within(give()) == 7
    with pytest.raises(KeyError):
        run_within(fail())
