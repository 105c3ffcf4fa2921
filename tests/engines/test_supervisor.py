from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from headrace.engines.child import Command
from headrace.engines.restarts import RestartRules
from headrace.engines.supervisor import Supervisor

SERVES = """
import json, sys
told = sys.stdin.readline().strip()
print("told", told, file=sys.stderr, flush=True)
print(json.dumps({"port": 4242}), flush=True)
sys.stdin.read()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SERVES
DIES = "import sys; print('out of memory', file=sys.stderr); sys.exit(7)"
REFUSES = 'print(\'{"error": "no such model"}\', flush=True); raise SystemExit(1)'
SILENT = "import sys; sys.stdin.read()"
QUICK = RestartRules(first_s=0.001, longest_s=0.001, limit=2)


class Watcher:
    def __init__(self):
        self.ports = asyncio.Queue()
        self.deaths = asyncio.Queue()
        self.states = []

    def serving(self, port):
        self.ports.put_nowait(port)

    def died(self, why):
        self.deaths.put_nowait(why)
        self.states.append(self.supervisor.health()[0])


@contextlib.asynccontextmanager
async def supervised(*scripts, rules=QUICK, **options):
    """Each life runs the next script, the last one for ever."""
    left = list(scripts)

    def command():
        script = left.pop(0) if len(left) > 1 else left[0]
        arguments = script if isinstance(script, tuple) else (sys.executable, "-c", script)
        return Command(arguments, dict(os.environ), b"hello")

    watcher = Watcher()
    supervisor = watcher.supervisor = Supervisor("test", command, watcher, rules=rules, **options)
    try:
        yield supervisor, watcher
    finally:
        await supervisor.stop()


def test_who_is_told_of_a_death_finds_no_engine_that_says_it_serves(run):
    async def main():
        async with supervised(SERVES) as (supervisor, watcher):
            assert await supervisor.start() == "ready"
            os.kill(supervisor.pid, signal.SIGKILL)
            await watcher.deaths.get()
            assert watcher.states == ["starting"]

    run(main())


def test_a_process_is_told_its_line_and_serves(run, eventually, tmp_path):
    async def main():
        log = tmp_path / "engine.log"
        async with supervised(SERVES, log_path=log) as (supervisor, watcher):
            assert supervisor.health()[0] == "starting"
            assert await supervisor.start() == "ready"
            assert await watcher.ports.get() == 4242
            assert supervisor.health() == ("ready", f"process {supervisor.pid} serves")
            await eventually(lambda: "told hello" in supervisor.log.last(9))
            pid = supervisor.pid
        assert supervisor.health()[0] == "closed"
        assert "told hello" in log.read_text()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(main())


def test_a_process_that_dies_is_started_again(run):
    async def main():
        async with supervised(SERVES) as (supervisor, watcher):
            await supervisor.start()
            await watcher.ports.get()
            first = supervisor.pid
            os.kill(first, signal.SIGKILL)
            assert "signal 9" in await watcher.deaths.get()
            await watcher.ports.get()
            assert supervisor.pid not in (0, first)
            assert supervisor.health()[0] == "ready"

    run(main())


def test_a_crash_loop_is_given_up_with_the_last_lines_of_its_log(run):
    async def main():
        async with supervised(DIES) as (supervisor, watcher):
            assert await supervisor.start() == "failed"
            state, reason = supervisor.health()
            assert state == "failed"
            assert "3 times" in reason
            assert "status 7" in reason
            assert "out of memory" in reason
            assert watcher.deaths.empty()

    run(main())


def test_a_start_that_fails_once_is_tried_again(run):
    async def main():
        async with supervised(DIES, SERVES) as (supervisor, _):
            assert await supervisor.start() == "ready"

    run(main())


@pytest.mark.parametrize(
    ("script", "words"), [(REFUSES, "no such model"), (("/no/such/program",), "cannot be started")]
)
def test_a_process_that_says_why_it_cannot_serve_is_not_asked_again(run, script, words):
    async def main():
        rules = RestartRules(first_s=1000)
        async with supervised(script, rules=rules) as (supervisor, _):
            assert await supervisor.start() == "failed"
            assert words in supervisor.health()[1]

    run(main())


def test_a_process_that_never_serves_is_ended_after_its_time(run):
    async def main():
        async with supervised(SILENT, start_timeout_s=0.05) as (supervisor, _):
            assert await supervisor.start() == "failed"
            assert "signal 9" in supervisor.health()[1]

    run(main())


def test_a_process_that_does_not_end_when_asked_is_killed(run):
    async def main():
        async with supervised(STUBBORN) as (supervisor, watcher):
            await supervisor.start()
            pid = supervisor.pid
            await supervisor.stop(limit_s=0.05)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert "signal 9" in await watcher.deaths.get()
            await supervisor.stop()

    run(main())


def test_stopping_while_it_starts_leaves_nothing(run, eventually):
    async def main():
        async with supervised(SILENT) as (supervisor, _):
            starting = asyncio.create_task(supervisor.start())
            await eventually(lambda: supervisor.pid)
            pid = supervisor.pid
            assert "starting" in supervisor.health()[0]
            await supervisor.stop()
            assert await starting == "closed"
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel by /proc")
def test_a_process_that_stands_still_ends_when_asked(run, eventually):
    def stands(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    async def main():
        async with supervised(SERVES) as (supervisor, watcher):
            await supervisor.start()
            pid = supervisor.pid
            os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: stands(pid))
            async with asyncio.timeout(5):
                await supervisor.stop(limit_s=3600)
            assert "signal 15" in await watcher.deaths.get()

    run(main())
