"""What every engine with a process of its own does the same way: its life, and the runs that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.base import StreamingEngine
from headrace.engines.child import Command
from headrace.engines.engine import EngineInfo, Health, Sink
from headrace.engines.fan import FanRun
from headrace.engines.orphans import TAG, Owner, end_orphans
from headrace.engines.restarts import RestartRules
from headrace.engines.supervisor import Supervisor

RETRY_AFTER_S = 1.0
"""What a client is told while the process is started again."""
QUESTIONS = 20
"""How often processes that serve are asked what they can before the engine is given up."""
ASK_AGAIN_S = 0.1


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How a process is kept: ``state`` names this server's state folder, so that left-over processes are found."""

    name: str
    state: str
    log_path: Path | None = None
    rules: RestartRules = RestartRules()
    start_timeout_s: float = 600.0


class Closing(Protocol):
    """What speaks to a process."""

    async def close(self) -> None:
        """Let go of it; idempotent."""


C = TypeVar("C", bound=Closing)


class ProcessEngine(StreamingEngine, Generic[C]):
    """An :class:`~headrace.engines.engine.Engine` whose tokens are computed by a process of its own, to which a
    client ``C`` speaks for as long as it lives."""

    def __init__(self, life: Life, environment: Mapping[str, str]) -> None:
        """``environment``: of the process."""
        self._life = life
        self._owner = Owner.this_process(life.state)
        self._environment = {**environment, TAG: self._owner.tag}
        self._key = secrets.token_urlsafe(24)
        self._supervisor = Supervisor(
            life.name,
            self._command,
            self,
            log_path=life.log_path,
            rules=life.rules,
            start_timeout_s=life.start_timeout_s,
        )
        self._client: C | None = None
        self._info: EngineInfo | None = None
        self._runs: set[FanRun] = set()
        self._idle = asyncio.Event()
        self._draining = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int:
        """Of the engine process; 0 while there is none."""
        return self._supervisor.pid

    @property
    def serving_pid(self) -> int:
        """The same of a process that has come to serve: one that is just starting does not yet end with this one."""
        return 0 if self._client is None else self.pid

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._runs)

    @property
    def client(self) -> C:
        """Of the living process, for who wants to look into it. Raises what says why there is none."""
        return self._serving()

    async def load(self) -> None:
        end_orphans(self._life.state)
        await self._supervisor.start()
        questions = 0
        while self._info is None:
            if await self._supervisor.settled() != "ready" or (client := self._client) is None:
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, self._supervisor.health()[1])
            try:
                self._info = await self._learn(client)
            except HeadraceError:
                # It may have died while it was asked; the next one is asked again.
                questions += 1
                if questions == QUESTIONS:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)

    def info(self) -> EngineInfo:
        return self._info or super().info()

    def health(self) -> tuple[Health, str]:
        return self._supervisor.health()

    async def drain(self, limit_s: float) -> None:
        """Take no new runs; return when those under way are over, or after ``limit_s``."""
        self._draining = True
        if self._runs:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), limit_s)

    async def close(self) -> None:
        self._fail_all(HeadraceError(Code.ENGINE_UNAVAILABLE, "The engine was closed."))
        await self._supervisor.stop()
        if self._client is not None:
            await self._client.close()
        await asyncio.gather(*self._closing)

    # What the supervisor says.

    def serving(self, port: int) -> None:
        """A process serves: its slots are free, its caches empty."""
        self._client = self._connect(port)

    def died(self, why: str) -> None:
        """The process is gone, and with it every run."""
        client, self._client = self._client, None
        text = f"The engine process of {self._life.name} is gone: {why}."
        self._fail_all(HeadraceError(Code.ENGINE_FAILED, text))
        if client is not None:
            task = asyncio.get_running_loop().create_task(client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # What engines say of their processes.

    @abstractmethod
    def _command(self) -> Command:
        """What is started."""

    @abstractmethod
    def _connect(self, port: int) -> C:
        """Who speaks to the process that listens there."""

    @abstractmethod
    async def _learn(self, client: C) -> EngineInfo:
        """What it says of its model."""

    # Runs.

    def _new_run(self, sink: Sink, choices: int) -> FanRun:
        """A new run, until it is over one of those under way."""
        run = FanRun(sink, choices, choices, self._over)
        self._runs.add(run)
        self._idle.clear()
        return run

    def _over(self, run: FanRun) -> None:
        self._runs.discard(run)
        if not self._runs:
            self._idle.set()

    def _fail_all(self, error: HeadraceError) -> None:
        for run in list(self._runs):
            run.failed(error)

    def _serving(self) -> C:
        """The living process's client. Raises what says why there is none."""
        if self._draining:
            raise HeadraceError(Code.SHUTTING_DOWN, "The engine takes no new requests.")
        if self._client is None:
            state, reason = self.health()
            code = Code.MODEL_LOADING if state == "starting" else Code.ENGINE_UNAVAILABLE
            text = f"The engine of {self._life.name} is {state}: {reason}."
            raise HeadraceError(code, text, retry_after_s=RETRY_AFTER_S)
        return self._client
