"""What makes vectors of texts: an upstream, which is told the whole request, or the embedded llama.cpp, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from headrace.domain.embeddings import EmbeddingRequest, Embeddings, Input, cut
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.standing import USUAL, Standing
from headrace.engines.engine import Engine
from headrace.routing.model import Model
from headrace.scheduling.batcher import BatchOptions
from headrace.scheduling.batching import Batching

AT_ONCE = 2
"""Pieces of one request that wait or run at a time: the engine has always another one, and others come between."""

A = TypeVar("A")
B = TypeVar("B")


async def in_pieces(pieces: Sequence[A], do: Callable[[A], Awaitable[B]]) -> list[B]:
    """The results of all pieces of a request, in order; ``AT_ONCE`` are under way. Raises what the first one that
    failed did."""
    if len(pieces) == 1:
        return [await do(pieces[0])]
    results: dict[int, B] = {}
    left = iter(enumerate(pieces))

    async def some() -> None:
        for index, piece in left:
            results[index] = await do(piece)

    tasks = [asyncio.ensure_future(some()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[index] for index in range(len(pieces))]


class Dimensions(msgspec.Struct, frozen=True):
    """How short vectors may be cut: to the lengths that the model was ``trained`` for, or to ``any``."""

    trained: tuple[int, ...] = ()
    any: bool = False

    def fit(self, vectors: Sequence[Any], wanted: int | None) -> Sequence[Any]:
        """The vectors in the length that is wanted. Raises ``UNSUPPORTED`` for one that they cannot have."""
        if wanted is None or len(vectors[0]) == wanted:
            return vectors
        if wanted > len(vectors[0]) or not (self.any or wanted in self.trained):
            has = sorted({*self.trained, len(vectors[0])})
            text = (
                f"`dimensions` must be one of {', '.join(map(str, has))}: this model has no others."
            )
            raise HeadraceError(Code.UNSUPPORTED, text, param="dimensions")
        return [cut(vector, wanted) for vector in vectors]


def check_length(index: int, tokens: int, most: int) -> None:
    """Raise ``CONTEXT_LENGTH`` if the input of this index is too long, ``INVALID_REQUEST`` if nothing is in it."""
    if not tokens:
        text = f"`input[{index}]` has no tokens: there is nothing that a vector could be of."
        raise HeadraceError(Code.INVALID_REQUEST, text, param=f"input[{index}]")
    if tokens > most:
        text = f"`input[{index}]` is {tokens} tokens; this model takes {most} at most. Make it shorter."
        raise HeadraceError(Code.CONTEXT_LENGTH, text, param=f"input[{index}]")


class UpstreamTexts:
    """The upstream that has the least to do is asked; if it cannot serve, the next."""

    def __init__(self, model: Model[Engine]) -> None:
        self._model = model

    full = False
    """Its upstreams have queues of their own."""

    async def embed(self, request: EmbeddingRequest, standing: Standing = USUAL) -> Embeddings:
        ready = self._model.least_busy()
        if not ready:
            raise _not_ready(self._model)
        for replica in ready[:-1]:
            try:
                return await replica.engine.embed(request)
            except HeadraceError as error:
                if not error.meaning.retryable:
                    raise
        return await ready[-1].engine.embed(request)

    async def load(self) -> None:
        """Its engine is loaded by itself."""

    async def close(self) -> None:
        """Nothing waits here."""


class LlamaTexts:
    """Texts are token ids before they wait, so that each request knows how many it had. ``most``: of an input."""

    def __init__(
        self, model: Model[Engine], options: BatchOptions, most: int, dimensions: Dimensions
    ) -> None:
        self._model = model
        self._rows = options.max_batch_size
        self._most = most
        self._dimensions = dimensions
        self._batching: Batching[Sequence[Input], Sequence[Any]] = Batching(self._run, options)

    @property
    def full(self) -> bool:
        return self._batching.full

    async def embed(self, request: EmbeddingRequest, standing: Standing = USUAL) -> Embeddings:
        ids = await in_pieces(list(enumerate(request.inputs)), self._tokens)
        pieces = [ids[at : at + self._rows] for at in range(0, len(ids), self._rows)]

        async def submit(piece: Sequence[Input]) -> Sequence[Any]:
            return await self._batching.submit(piece, rows=len(piece), standing=standing)

        found = await in_pieces(pieces, submit)
        vectors = [vector for piece in found for vector in piece]
        fitting = self._dimensions.fit(vectors, request.dimensions)
        return Embeddings(fitting, sum(map(len, ids)))

    async def load(self) -> None:
        """Its engine is loaded by itself."""

    async def close(self) -> None:
        await self._batching.close()

    async def _tokens(self, numbered: tuple[int, Input]) -> tuple[int, ...]:
        index, one = numbered
        if isinstance(one, str):
            one = (await self._engine().tokenize(one, special=True)).ids
        check_length(index, len(one), self._most)
        return one

    async def _run(self, pieces: Sequence[Sequence[Input]]) -> Sequence[Sequence[Any]]:
        inputs = tuple(one for piece in pieces for one in piece)
        request = EmbeddingRequest(self._model.name, inputs)
        vectors = iter((await self._engine().embed(request)).vectors)
        return [[next(vectors) for _ in piece] for piece in pieces]

    def _engine(self) -> Engine:
        for replica in self._model.replicas:
            if replica.up:
                return replica.engine
        raise _not_ready(self._model)


def _not_ready(model: Model[Engine]) -> HeadraceError:
    text = f"The model is not ready: {model.readiness()[1]}."
    return HeadraceError(Code.MODEL_LOADING, text, retry_after_s=1.0)
