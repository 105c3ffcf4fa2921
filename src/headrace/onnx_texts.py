"""Vectors of texts by an ONNX model: tokenised, run with others of about their length by the tensors' own batcher,
pooled. Imports numpy: only where such a model is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Protocol

import msgspec

from headrace.domain.embeddings import EmbeddingRequest, Embeddings, Input
from headrace.domain.standing import USUAL, Standing
from headrace.domain.tensors import TensorModel
from headrace.embedders import Dimensions, check_length, in_pieces
from headrace.engines.joined_texts import JoinedTexts, PendingTexts
from headrace.engines.tensor_runs import Pending
from headrace.engines.text_encoder import Pooling, TextTokenizer
from headrace.scheduling.buckets import Buckets

ROWS = 32
"""Of a run, where the model has no maximum of its own."""
SHORT = 8
"""Texts of so many tokens at most run together if one request has them: padding costs less there than runs do."""
LONG_BYTES = 16_384
"""Texts that are longer all together are tokenised in a thread: a millisecond's worth."""


class Tensors(Protocol):
    """The way of tensors, for who has been let in already."""

    async def ready(self, name: str) -> TensorModel:
        """A model, once it is loaded."""

    async def run_admitted(
        self, name: str, pending: Pending, key: Hashable, standing: Standing
    ) -> Any:
        """Its answer, of a run with others of this key."""

    def full(self, name: str) -> bool:
        """Whether who asks now would find no room."""


class OnnxOptions(msgspec.Struct, frozen=True):
    """``most``: tokens of an input. ``padding``: the largest share of a run that is padding; more is, if need be,
    between texts of one request that have :data:`SHORT` tokens at most. ``output``: the model's; empty: the one that is
    a sentence's, or the first."""

    name: str
    most: int
    padding: float
    pooling: Pooling = "mean"
    normalize: bool = True
    output: str = ""
    dimensions: Dimensions = Dimensions()


class Loaded(msgspec.Struct, frozen=True):
    """``most``: rows of a run, 0 if the model has no batch."""

    tokenizer: TextTokenizer
    joining: JoinedTexts
    most: int


Piece = list[int]
"""Indices of inputs that are run together."""


class OnnxTexts:
    """``fetch``: brings the tokenizer."""

    def __init__(
        self, tensors: Tensors, options: OnnxOptions, fetch: Callable[[], Awaitable[TextTokenizer]]
    ) -> None:
        self._tensors = tensors
        self._options = options
        self._fetch = fetch
        self._buckets = Buckets(options.most, options.padding, SHORT)
        self._tokenizer: TextTokenizer | None = None
        self._loaded: Loaded | None = None
        self._fetching = asyncio.Lock()

    async def load(self) -> None:
        """The tokenizer only: when its model is loaded, the settings say."""
        await self._with_tokenizer()

    @property
    def full(self) -> bool:
        return self._tensors.full(self._options.name)

    async def embed(self, request: EmbeddingRequest, standing: Standing = USUAL) -> Embeddings:
        loaded = self._loaded or await self._load()
        rows = await _tokenised(loaded.tokenizer, request.inputs)
        for index, row in enumerate(rows):
            check_length(index, len(row), self._options.most)
        vectors: list[Any] = [None] * len(rows)

        async def run(piece: Piece) -> None:
            found = await self._run(loaded, [rows[at] for at in piece], standing)
            for at, vector in zip(piece, found, strict=True):
                vectors[at] = vector

        await in_pieces(self._pieces(rows, loaded.most or ROWS), run)
        fitting = self._options.dimensions.fit(vectors, request.dimensions)
        return Embeddings(fitting, sum(map(len, rows)))

    async def close(self) -> None:
        """What waits, waits with the tensors."""

    async def _with_tokenizer(self) -> TextTokenizer:
        async with self._fetching:
            if self._tokenizer is None:
                self._tokenizer = await self._fetch()
            return self._tokenizer

    async def _load(self) -> Loaded:
        options = self._options
        tokenizer = await self._with_tokenizer()
        model = await self._tensors.ready(options.name)
        if self._loaded is None:  # once for all who waited: what joins them must be the same
            output = options.output or _output(model)
            joining = JoinedTexts(
                model.inputs, output, tokenizer.pad_id, options.pooling, options.normalize
            )
            self._loaded = Loaded(tokenizer, joining, model.max_batch_size)
        return self._loaded

    def _pieces(self, rows: Sequence[Sequence[int]], most: int) -> list[Piece]:
        """Inputs of about one length together, at most so many."""
        by_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_length.setdefault(self._buckets.length(len(row)), []).append(index)
        return [
            indices[at : at + most]
            for indices in by_length.values()
            for at in range(0, len(indices), most)
        ]

    async def _run(
        self, loaded: Loaded, rows: Sequence[Sequence[int]], standing: Standing
    ) -> Sequence[Any]:
        joining, options = loaded.joining, self._options
        lengths = [len(row) for row in rows]
        longest = max(lengths)
        pending = PendingTexts(
            joining=joining,
            rows=len(rows) if loaded.most else 1,
            length=longest,
            padding=options.padding,
            own_padding=len(rows) * longest - sum(lengths),
            ids=rows,
        )
        vectors: Sequence[Any] = await self._tensors.run_admitted(
            options.name, pending, joining, standing
        )
        return vectors


async def _tokenised(tokenizer: TextTokenizer, inputs: Sequence[Input]) -> list[Sequence[int]]:
    if sum(map(len, inputs)) > LONG_BYTES:
        return await asyncio.to_thread(tokenizer.ids, inputs)
    return tokenizer.ids(inputs)


def _output(model: TensorModel) -> str:
    names = [spec.name for spec in model.outputs]
    return "sentence_embedding" if "sentence_embedding" in names else names[0]
