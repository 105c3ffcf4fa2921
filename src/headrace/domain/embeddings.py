"""Embeddings: what is asked for them, and what they are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

Input = str | tuple[int, ...]
"""A text, or token ids, which are taken as they are."""


class EmbeddingRequest(msgspec.Struct, frozen=True, gc=False):
    """``inputs``: each gets a vector. ``dimensions``: numbers of it that are wanted, None for all. ``user``: whom the
    client does it for, told to an upstream. ``priority``: lower is sooner, 0 for the usual."""

    model: str
    inputs: tuple[Input, ...]
    dimensions: int | None = None
    user: str | None = None
    priority: int = 0


class Embeddings(msgspec.Struct, frozen=True):
    """``vectors``: one an input, in their order; each an ``array`` or a ``numpy.ndarray`` of one dimension, of
    float32 or float64. ``prompt_tokens``: of all inputs together."""

    vectors: Sequence[Any]
    prompt_tokens: int


def float32(vector: Any) -> bytes:
    """A vector's numbers, 4 bytes each; little-endian, as every machine is that this runs on."""
    if vector.itemsize != 4:
        vector = array("f", vector)
    data: bytes = vector.tobytes()
    return data


def cut(vector: Any, dimensions: int) -> array[float]:
    """The beginning of a vector, of length 1 by its L2 norm, as models of the Matryoshka kind are used
    (https://arxiv.org/abs/2205.13147)."""
    beginning = vector.tolist()[:dimensions]
    norm = sum([number * number for number in beginning]) ** 0.5 or 1.0
    return array("f", [number / norm for number in beginning])
