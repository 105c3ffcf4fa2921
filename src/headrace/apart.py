"""A model's engine that rows of jobs have to themselves, there while there are rows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.lazy import LazyEngine
from headrace.flow import Flow

_logger = logging.getLogger("headrace.jobs")

LOOK_S = 0.5
IDLE_S = 60.0
"""Without rows for so long, it is unloaded: it takes as much memory as the model's own engine."""
AGAIN_S = 600.0
"""Where it cannot be, because memory is short or its process dies, rows go where all others go for so long."""


class Apart:
    """``flow``: of the rows, whose only replica's engine is ``engine``; ``leading``: of all others. ``tell`` is told
    "loaded" and "unloaded"."""

    def __init__(
        self,
        flow: Flow,
        engine: LazyEngine,
        leading: Flow,
        tell: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self.flow = flow
        self._engine = engine
        self._leading = leading
        self._tell = tell
        self._look_s = look_s
        self._idle_s = idle_s
        self._asked = asyncio.Event()
        self._not_before = 0.0

    def wanted(self) -> bool:
        """A row comes; whether it is to go through :attr:`flow`."""
        if time.monotonic() < self._not_before:
            return False
        self._asked.set()
        return True

    async def run(self) -> None:
        """Load it whenever it is wanted, until cancelled."""
        while True:
            await self._asked.wait()
            if not self._leading.serving:  # its file may not be there yet
                await asyncio.sleep(self._look_s)
                continue
            try:
                await self._serve()
            except HeadraceError as error:
                await self._give_up(error)
            finally:
                await self.close()

    async def close(self) -> None:
        await self._engine.close()

    async def _serve(self) -> None:
        await self._engine.load()
        self._tell("loaded")
        needed_at = time.monotonic()
        while time.monotonic() - needed_at < self._idle_s:
            await asyncio.sleep(self._look_s)
            state, why = self._engine.health()
            if state == "failed":
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, why)
            if self._needed:
                needed_at = time.monotonic()
        self._asked.clear()
        await self.close()
        self._tell("unloaded")

    @property
    def _needed(self) -> bool:
        return bool(self.flow.queue.waiting or self.flow.running)

    async def _give_up(self, error: HeadraceError) -> None:
        """Rows that wait here are asked again by their jobs, and go elsewhere."""
        _logger.warning(
            "rows of jobs for %s run beside everything else for now: %s",
            *(self.flow.model.name, error.message),
        )
        self._not_before = time.monotonic() + AGAIN_S
        self._asked.clear()
        await self.close()
        for waiting in self.flow.queue.items():
            self.flow.queue.remove(waiting)
            waiting.fail(HeadraceError(Code.ENGINE_UNAVAILABLE, error.message))
