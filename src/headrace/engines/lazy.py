"""An engine that is there only while somebody needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request
from headrace.engines.base import StreamingEngine
from headrace.engines.engine import Engine, EngineInfo, Health, Run, Sink, Work


class LazyEngine(StreamingEngine):
    """Is what ``build`` makes, from :meth:`load` to :meth:`close`, as often as that happens."""

    def __init__(self, build: Callable[[], Engine]) -> None:
        self._build = build
        self._engine: Engine | None = None

    async def load(self) -> None:
        engine = self._engine = self._build()
        await engine.load()

    def info(self) -> EngineInfo:
        return self._engine.info() if self._engine is not None else super().info()

    def health(self) -> tuple[Health, str]:
        if self._engine is None:
            return "starting", "nobody needs it now"
        return self._engine.health()

    def check(self, request: Request) -> None:
        if self._engine is not None:
            self._engine.check(request)

    def check_prompt(self, request: Request) -> None:
        if self._engine is not None:
            self._engine.check_prompt(request)

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        if self._engine is None:
            error = HeadraceError(Code.MODEL_LOADING, "The engine is not loaded now.")
            return Refused(asyncio.get_running_loop().call_soon(sink.failed, error))
        return self._engine.stream_infer(work, sink)

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


class Refused:
    """A run that never began."""

    def __init__(self, handle: asyncio.Handle) -> None:
        self._handle = handle

    def cancel(self) -> None:
        self._handle.cancel()
