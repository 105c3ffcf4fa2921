"""An engine beside a model's own that is there only while somebody needs it."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Callable

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.lazy import LazyEngine
from headrace.flow import Flow

_logger = logging.getLogger("headrace.service")

LOOK_S = 0.5
IDLE_S = 60.0
"""Needed by nobody for so long, it is unloaded: its memory is for others."""
AGAIN_S = 600.0
"""Where it cannot be, because memory is short or its process dies, those it is for do without for so long."""


class Occasional:
    """``engine``: loaded when it is :meth:`wanted`; ``leading``: the flow of the model's own. ``tell`` is told
    "loaded" and "unloaded". ``delay_s``: between somebody's coming and the load, which costs a second of processors."""

    def __init__(
        self,
        engine: LazyEngine,
        leading: Flow,
        tell: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
        delay_s: float = 0.0,
    ) -> None:
        self._engine = engine
        self._leading = leading
        self._tell = tell
        self._look_s = look_s
        self._idle_s = idle_s
        self._delay_s = delay_s
        self._asked = asyncio.Event()
        self._needed_at = 0.0
        self._not_before = 0.0
        self._closed = asyncio.Event()

    def wanted(self) -> bool:
        """Somebody comes; whether it is there for such, or will be."""
        now = time.monotonic()
        if now < self._not_before:
            return False
        self._needed_at = now
        self._asked.set()
        return True

    async def run(self) -> None:
        """Load it whenever it is wanted, until cancelled or closed."""
        while True:
            await self._asked.wait()
            await asyncio.sleep(self._delay_s)
            if self._closed.is_set():
                return
            if not self._leading.serving:  # its file may not be there yet
                await asyncio.sleep(self._look_s)
                continue
            try:
                await self._serve()
            except HeadraceError as error:
                if self._closed.is_set():
                    name = self._leading.model.name
                    _logger.info("the engine beside %s is not loaded: the server stops", name)
                    return
                await self._give_up(error)
            except Exception as error:  # the server does not end because of what it can do without
                _logger.exception("what is beside %s failed", self._leading.model.name)
                await self._give_up(HeadraceError(Code.INTERNAL, repr(error)))
            finally:
                await self._engine.close()

    async def close(self) -> None:
        """The server stops: it is not loaded again."""
        self._closed.set()
        await self._engine.close()

    async def _serve(self) -> None:
        await self._engine.load()
        self._tell("loaded")
        self._needed_at = time.monotonic()
        while time.monotonic() - self._needed_at < self._idle_s:
            await asyncio.sleep(self._look_s)
            state, why = self._engine.health()
            if state == "failed":
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, why)
            if self._needed:
                self._needed_at = time.monotonic()
        self._asked.clear()
        await self._engine.close()
        self._tell("unloaded")

    async def _give_up(self, error: HeadraceError) -> None:
        _logger.warning("%s for now: %s", self._without, error.message)
        self._not_before = time.monotonic() + AGAIN_S
        self._asked.clear()
        await self._engine.close()
        self._gave_up(error)

    @property
    @abstractmethod
    def _needed(self) -> bool:
        """Whether somebody uses it or waits for it."""

    @property
    @abstractmethod
    def _without(self) -> str:
        """What becomes of those it is for while it cannot be."""

    @abstractmethod
    def _gave_up(self, error: HeadraceError) -> None:
        """It cannot be: who waits for it is to go elsewhere."""
