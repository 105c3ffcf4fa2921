from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.base import StreamingEngine
from headrace.engines.engine import EngineInfo, Health
from headrace.local_engine import LocalEngine
from headrace.models.wanted import ModelFile, Step

Run = Callable[[Any], Any]
INFO = EngineInfo("m", "1", "slow", 0, 1, 1, 2, 0.0, True)


class Slow(StreamingEngine):
    """Serves before it has said what it can, as an engine process does."""

    def __init__(self) -> None:
        self.serves = asyncio.Event()
        self.asked = asyncio.Event()
        self._info: EngineInfo | None = None

    async def load(self) -> None:
        await self.serves.wait()
        await self.asked.wait()
        self._info = INFO

    def info(self) -> EngineInfo:
        return self._info or super().info()

    def health(self) -> tuple[Health, str]:
        return ("ready", "it serves") if self.serves.is_set() else ("starting", "it is loading")

    def check(self, request: Any) -> None:
        raise NotImplementedError

    async def cache_usage(self) -> float | None:
        return 0.5

    async def close(self) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def bar(name: str) -> Iterator[Callable[[Step], None]]:
    yield lambda step: None


def local(slow: Slow, file: asyncio.Event) -> LocalEngine:
    async def fetch(show: Callable[[Step], None]) -> ModelFile:
        show(Step("download", 1, 4))
        await file.wait()
        return ModelFile("model.gguf", "file:model.gguf", "keep", "0" * 64, 1, {})

    return LocalEngine("m", fetch, lambda found: slow, bar)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that nothing announces."""
    while not condition():  # noqa: ASYNC110  (nothing announces it)
        await asyncio.sleep(0)


def test_whoever_sees_it_ready_can_ask_what_it_can(run: Run) -> None:
    async def main() -> None:
        slow, file = Slow(), asyncio.Event()
        engine = local(slow, file)
        loading = asyncio.ensure_future(engine.load())
        await until(lambda: "25 %" in engine.health()[1])
        file.set()
        await until(lambda: engine.health() == ("starting", "it is loading"))
        slow.serves.set()
        await until(lambda: slow.health()[0] == "ready")
        assert engine.health()[0] == "starting"
        slow.asked.set()
        await loading
        assert engine.health() == ("ready", "it serves")
        assert engine.info() is INFO

    run(main())


def test_its_cache_is_the_engines_and_unknown_before_there_is_one(run: Run) -> None:
    async def main() -> None:
        slow, file = Slow(), asyncio.Event()
        engine = local(slow, file)
        with pytest.raises(HeadraceError) as caught:
            await engine.cache_usage()
        assert caught.value.code is Code.MODEL_LOADING
        for event in (file, slow.serves, slow.asked):
            event.set()
        await engine.load()
        assert await engine.cache_usage() == 0.5

    run(main())


def test_one_that_serves_but_never_says_what_it_can_has_failed(run: Run) -> None:
    class Silent(Slow):
        async def load(self) -> None:
            await self.serves.wait()
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, "It does not say what it can.")

    async def main() -> None:
        slow, file = Silent(), asyncio.Event()
        file.set()
        slow.serves.set()
        engine = local(slow, file)
        with pytest.raises(HeadraceError):
            await engine.load()
        assert engine.health() == ("failed", "It does not say what it can.")

    run(main())
