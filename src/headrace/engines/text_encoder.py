"""Texts to tokens, and what a model says of the tokens to one vector a text. Needs the extra ``onnx``.

As sentence-transformers does it: https://sbert.net/docs/package_reference/sentence_transformer/models.html#pooling
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from headrace.domain.embeddings import Input
from headrace.domain.errors import Code, HeadraceError

Pooling = Literal["mean", "cls", "last"]
LEAST_NORM = 1e-12


class TextTokenizer:
    """Of a file ``tokenizer.json``. Where that says to cut or to pad texts it does not count: what is too long is
    refused, and padding is to the length of a batch."""

    def __init__(self, path: Path) -> None:
        """Raises ``ENGINE_UNAVAILABLE`` for a file that is none."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  the library raises nothing narrower
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"{path}: {error}") from None
        padding = self._tokenizer.padding
        self.pad_id: int = padding["pad_id"] if padding else 0
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def ids(self, inputs: Sequence[Input]) -> list[Sequence[int]]:
        """Texts get the model's special tokens; ids are taken as they are. Raises ``INVALID_REQUEST`` naming the
        input for ids that are none."""
        if isinstance(inputs[0], str):
            return [one.ids for one in self._tokenizer.encode_batch_fast(list(inputs))]
        for index, ids in enumerate(inputs):
            if any(id >= self._size for id in ids):  # type: ignore[operator]  # they are ids, all of them
                text = f"`input[{index}]` has token ids of {self._size} or above, as many as this model has."
                raise HeadraceError(Code.INVALID_REQUEST, text, param=f"input[{index}]")
        return list(inputs)  # type: ignore[arg-type]


def padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> tuple[Any, Any]:
    """Ids and mask (1: a token, 0: padding) of a batch, ``int64`` of (rows, length)."""
    ids = np.full((len(rows), length), pad_id, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return ids, mask


def pooled(output: Any, mask: Any, pooling: Pooling, normalize: bool) -> tuple[Any, Any]:
    """Vectors (rows, dimensions) of a model's output (rows, length, dimensions), and which of them are numbers; one
    that is two-dimensional has been pooled by the model."""
    vectors = output if output.ndim == 2 else _pool(output, mask, pooling)
    vectors = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("rd,rd->r", vectors, vectors))
    sound = np.isfinite(norms)
    if not normalize:
        return vectors, sound
    lengths = np.where(sound, np.maximum(norms, LEAST_NORM), 1.0)
    return vectors / lengths.astype(np.float32)[:, None], sound


def no_number() -> HeadraceError:
    """The error for inputs whose vectors are none."""
    text = "The model's answer to these inputs is not a number (NaN or infinite)."
    return HeadraceError(Code.ENGINE_FAILED, text)


def _pool(output: Any, mask: Any, pooling: Pooling) -> Any:
    if pooling == "cls":
        return output[:, 0]
    lengths = mask.sum(axis=1)
    if pooling == "last":
        return output[np.arange(len(output)), lengths - 1]
    weights = mask.astype(output.dtype)[:, None, :]
    return np.matmul(weights, output)[:, 0] / lengths[:, None]
