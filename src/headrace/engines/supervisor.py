"""Keeps one engine process alive: start, watch, start again after a pause, stop.

One owner of the state: ``starting`` → ``ready`` → (died) → ``starting`` … → ``failed`` when it dies too
often, ``closed`` when it was told to stop. Nothing here waits for the process on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.engines.child import Child, Command
from headrace.engines.child_log import ChildLog
from headrace.engines.engine import Health
from headrace.engines.restarts import GiveUp, Restart, RestartPolicy, RestartRules

LAST_LINES = 5
"""Lines of the process's log that become part of the reason for a failure."""


class Watcher(Protocol):
    """Who uses the process."""

    def serving(self, port: int) -> None:
        """A new process serves on this loopback port."""

    def died(self, why: str) -> None:
        """The process that served is gone."""


class Supervisor:
    """Supervises the process that ``command`` describes, made anew for each life."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Command],
        watcher: Watcher,
        *,
        log_path: Path | None = None,
        rules: RestartRules | None = None,
        start_timeout_s: float = 600.0,
    ) -> None:
        """``start_timeout_s``: a process that does not serve by then is killed, as if it had died."""
        self._name = name
        self._command = command
        self._watcher = watcher
        self._policy = RestartPolicy(rules or RestartRules())
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._served_since = 0.0
        self._ever_served = False
        self._settled = asyncio.Event()
        self._state: Health = "starting"
        self._reason = "its process was not started yet"
        self.log = ChildLog(log_path)

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        child = self._child
        return 0 if child is None or child.exited else child.pid

    def health(self) -> tuple[Health, str]:
        """State and the reason in words; while it starts, for how long."""
        if self._state == "starting" and self._child is not None:
            return "starting", f"{self._reason} ({time.monotonic() - self._began:.0f} s)"
        return self._state, self._reason

    async def start(self) -> Health:
        """Start the process and wait until it serves (``ready``) or is given up (``failed``)."""
        self.log.open()
        self._launch()
        return await self.settled()

    async def settled(self) -> Health:
        """Wait until a process serves or none is started any more."""
        await self._settled.wait()
        return self._state

    async def stop(self, limit_s: float = 5.0) -> None:
        """End the process: SIGTERM, and SIGKILL after ``limit_s``. Idempotent."""
        self._state, self._reason = "closed", "it was stopped"
        self._settled.set()
        self._stop_timer()
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        child = self._child
        if child is not None:
            child.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.gone.wait(), limit_s)
            child.kill()
            await child.gone.wait()
        self.log.close()

    # A life.

    def _launch(self) -> None:
        self._timer = None
        self._began = time.monotonic()
        self._served_since = 0.0
        self._reason = "its process is starting"
        self._starting = asyncio.get_running_loop().create_task(self._start_child())

    async def _start_child(self) -> None:
        child = self._child = Child(self)
        try:
            await child.start(self._command())
        except OSError as error:
            self._child = None
            self._lost(f"it cannot be started: {error}", hopeless=True)
            return
        self.log.note(f"{self._name}: process {child.pid} started")
        self._reason = "its process is loading the model"
        if self._state == "starting" and not self._served_since:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._start_timeout_s, child.kill)

    def serving(self, child: Child, port: int) -> None:
        self._stop_timer()
        if self._state != "starting":
            return
        self._served_since = time.monotonic()
        self._ever_served = True
        self._state, self._reason = "ready", f"process {child.pid} serves"
        self.log.note(f"{self._name}: process {child.pid} serves on port {port}")
        self._watcher.serving(port)
        self._settled.set()

    def wrote(self, data: bytes) -> None:
        self.log.feed(data)

    def exited(self, child: Child, why: str) -> None:
        self._child = None
        self._stop_timer()
        self.log.note(f"{self._name}: process {child.pid} is gone: {why}")
        self._lost(why, hopeless=child.refused and not self._ever_served)

    def _lost(self, why: str, hopeless: bool) -> None:
        """A life is over: decide about the next, then tell who used it: by then it serves nobody. A process
        that says at its very first start why it cannot serve would say so again."""
        if self._state != "closed":
            self._decide_next(why, hopeless)
        if self._served_since:
            self._watcher.died(why)

    def _decide_next(self, why: str, hopeless: bool) -> None:
        match self._decide(hopeless):
            case Restart(after_s):
                self._state = "starting"
                self._settled.clear()
                self._reason = f"{why}; it is started again in {after_s:g} s"
                self._timer = asyncio.get_running_loop().call_later(after_s, self._launch)
            case GiveUp(reason):
                self._state = "failed"
                last = " | ".join(line.strip() for line in self.log.last(LAST_LINES))
                self._reason = f"{reason}{why}. Its log ends: {last}"
                self._settled.set()

    def _decide(self, hopeless: bool) -> Restart | GiveUp:
        if hopeless:
            return GiveUp("")
        now = time.monotonic()
        lived_s = now - self._served_since if self._served_since else 0.0
        return self._policy.died(now, lived_s)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
