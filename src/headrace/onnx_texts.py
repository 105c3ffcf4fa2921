"""Vectors of texts by an ONNX model: tokenised, padded to few lengths, run with others by the tensors' own batcher,
pooled. Imports numpy: only where such a model is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from headrace.domain.embeddings import EmbeddingRequest, Embeddings, Input
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.standing import USUAL, Standing
from headrace.domain.tensors import Tensor, TensorModel, TensorRequest, TensorResponse
from headrace.embedders import Dimensions, check_length, in_pieces
from headrace.engines.text_encoder import Pooling, TextTokenizer, padded, pooled
from headrace.scheduling.buckets import Buckets

ROWS = 32
"""Of a run, where the model has no maximum of its own."""
LONG_BYTES = 16_384
"""Texts that are longer all together are tokenised in a thread: a millisecond's worth."""


class Tensors(Protocol):
    """The way of tensors, for who has been let in already."""

    async def ready(self, name: str) -> TensorModel:
        """A model, once it is loaded."""

    async def infer_admitted(
        self, request: TensorRequest, standing: Standing
    ) -> TensorResponse: ...

    def full(self, name: str) -> bool:
        """Whether who asks now would find no room."""


class OnnxOptions(msgspec.Struct, frozen=True):
    """``most``: tokens of an input. ``padding``: as of :class:`~headrace.scheduling.buckets.Buckets`. ``output``: the
    model's; empty: the one that is a sentence's, or the first."""

    name: str
    most: int
    padding: float
    pooling: Pooling = "mean"
    normalize: bool = True
    output: str = ""
    dimensions: Dimensions = Dimensions()


class Loaded(msgspec.Struct, frozen=True):
    tokenizer: TextTokenizer
    model: TensorModel
    output: str


Piece = tuple[list[int], int]
"""Indices of inputs that are run together, and the length that they are padded to."""


class OnnxTexts:
    """``fetch``: brings the tokenizer."""

    def __init__(
        self, tensors: Tensors, options: OnnxOptions, fetch: Callable[[], Awaitable[TextTokenizer]]
    ) -> None:
        self._tensors = tensors
        self._options = options
        self._fetch = fetch
        self._buckets = Buckets(options.most, options.padding)
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
            indices, length = piece
            found = await self._run(loaded, [rows[at] for at in indices], length, standing)
            for at, vector in zip(indices, found, strict=True):
                vectors[at] = vector

        await in_pieces(self._pieces(rows, loaded.model.max_batch_size or ROWS), run)
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
        tokenizer = await self._with_tokenizer()
        model = await self._tensors.ready(self._options.name)
        output = self._options.output or _output(model)
        self._loaded = loaded = Loaded(tokenizer, model, output)
        return loaded

    def _pieces(self, rows: Sequence[Sequence[int]], most: int) -> list[Piece]:
        """Inputs of one bucket together, at most so many."""
        by_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_length.setdefault(self._buckets.length(len(row)), []).append(index)
        return [
            (indices[at : at + most], length)
            for length, indices in by_length.items()
            for at in range(0, len(indices), most)
        ]

    async def _run(
        self, loaded: Loaded, rows: Sequence[Sequence[int]], length: int, standing: Standing
    ) -> Any:
        ids, mask = padded(rows, length, loaded.tokenizer.pad_id)
        inputs = [_input(spec.name, spec.datatype, ids, mask) for spec in loaded.model.inputs]
        outputs = (loaded.output,)
        name, options = self._options.name, self._options
        asked = TensorRequest(name, inputs, outputs=outputs)
        response = await self._tensors.infer_admitted(asked, standing)
        return pooled(response.outputs[0].array, mask, options.pooling, options.normalize)


async def _tokenised(tokenizer: TextTokenizer, inputs: Sequence[Input]) -> list[Sequence[int]]:
    if sum(map(len, inputs)) > LONG_BYTES:
        return await asyncio.to_thread(tokenizer.ids, inputs)
    return tokenizer.ids(inputs)


def _input(name: str, datatype: Any, ids: Any, mask: Any) -> Tensor:
    """Raises ``UNSUPPORTED`` for an input that no text has."""
    match name:
        case "input_ids":
            array = ids
        case "attention_mask":
            array = mask
        case "token_type_ids":
            array = np.zeros_like(ids)
        case "position_ids":
            array = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
        case _:
            text = (
                f"This model gives no embeddings: nobody knows what its input {name} is of a text."
            )
            raise HeadraceError(Code.UNSUPPORTED, text, param="model")
    if datatype == "INT32":
        array = array.astype(np.int32)
    return Tensor(name, datatype, array.shape, array)


def _output(model: TensorModel) -> str:
    names = [spec.name for spec in model.outputs]
    return "sentence_embedding" if "sentence_embedding" in names else names[0]
