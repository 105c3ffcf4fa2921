"""An engine whose model file has to be fetched first; from then on it is that engine.

Nothing waits for the fetch but :meth:`LocalEngine.load`: the server is up and says how far it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request
from headrace.domain.tokens import Tokens
from headrace.engines.base import StreamingEngine, check_has_middle
from headrace.engines.engine import Engine, EngineInfo, Health, Run, Sink, Work
from headrace.engines.lazy import Refused
from headrace.models.wanted import ModelFile, Step

Fetch = Callable[[Callable[[Step], None]], Awaitable[ModelFile]]
Build = Callable[[ModelFile], Engine]


Bar = Callable[[str], AbstractContextManager[Callable[[Step], None]]]
"""Shows the steps of a named model's fetch to a person."""


class LocalEngine(StreamingEngine):
    """Fetches with ``fetch``, then is what ``build`` makes of the file."""

    def __init__(self, name: str, fetch: Fetch, build: Build, bar: Bar) -> None:
        self._name = name
        self._fetch = fetch
        self._build = build
        self._bar = bar
        self._engine: Engine | None = None
        self._loaded = False
        self._health: tuple[Health, str] = ("starting", "its file was not looked for yet")

    async def load(self) -> None:
        try:
            with self._bar(self._name) as show:
                file = await self._fetch(lambda step: self._step(step, show))
        except HeadraceError as error:
            self._health = ("failed", error.message)
            raise
        engine = self._build(file)
        self._engine = engine
        try:
            await engine.load()
        except HeadraceError as error:
            self._health = ("failed", error.message)
            raise
        self._loaded = True

    @property
    def loaded(self) -> Engine | None:
        """The engine itself, once its file is there."""
        return self._engine

    def info(self) -> EngineInfo:
        return self._engine.info() if self._engine is not None else super().info()

    def health(self) -> tuple[Health, str]:
        if self._engine is None:
            return self._health
        state, reason = self._engine.health()
        if state == "ready" and not self._loaded:  # its facts, which whoever sees "ready" asks for
            if self._health[0] == "failed":
                return self._health
            return "starting", "it serves, and is asked what it can"
        return state, reason

    def check(self, request: Request) -> None:
        if self._engine is not None:
            self._engine.check(request)

    def check_prompt(self, request: Request) -> None:
        if self._engine is not None:
            self._engine.check_prompt(request)
            return
        check_has_middle(request)
        if request.extra:  # a grammar, it may be
            raise _being_fetched()

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        if self._engine is not None:
            return self._engine.stream_infer(work, sink)
        return Refused(asyncio.get_running_loop().call_soon(sink.failed, _being_fetched()))

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        if self._engine is None:
            raise _being_fetched()
        return await self._engine.tokenize(text, special=special, pieces=pieces)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        if self._engine is None:
            raise _being_fetched()
        return await self._engine.detokenize(tokens)

    async def count_prompt(self, request: Request) -> int:
        if self._engine is None:
            raise _being_fetched()
        return await self._engine.count_prompt(request)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if self._engine is None:
            raise _being_fetched()
        return await self._engine.embed(request)

    async def cache_usage(self) -> float | None:
        if self._engine is None:
            raise _being_fetched()
        return await self._engine.cache_usage()

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
        else:
            self._health = ("closed", "the engine was closed")

    def _step(self, step: Step, show: Callable[[Step], None]) -> None:
        share = f", {100 * step.done // step.total} %" if step.total else ""
        self._health = ("starting", f"its file: {step.phase}{share}")
        show(step)


def _being_fetched() -> HeadraceError:
    return HeadraceError(Code.MODEL_LOADING, "The model is being fetched.", retry_after_s=1.0)
