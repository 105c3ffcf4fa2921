"""Models that packages ship, through the service: an embedding model and a classifier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headrace.domain.errors import Code
from headrace.domain.tensors import Tensor, TensorSpec
from headrace.models.wanted import ModelFile
from tests.tensor_house import TensorHouse, ask, infer, refusal, tensor

Run = Callable[[Any], Any]

KINDS = {
    143: b"import sys\n\n\ndef main(words):\n    for word in words:\n        print(word)\n\n\nmain(sys.argv)\n",
    87: b'{\n  "name": "mill",\n  "wheels": [1, 2, 3],\n  "water": {"litres": 4.5, "clear": true}\n}\n',
    71: b"<!DOCTYPE html>\n<html><head><title>Mill</title></head><body><p>Water</p></body></html>\n",
}
"""Python, JSON and HTML, by the classifier's numbers of them."""


def sentence(*tokens: int) -> tuple[Tensor, ...]:
    return (
        tensor("input_ids", [tokens], "INT64"),
        tensor("attention_mask", [[1] * len(tokens)], "INT64"),
        tensor("token_type_ids", [[0] * len(tokens)], "INT64"),
    )


def features(data: bytes) -> Tensor:
    """1,024 bytes of the beginning and of the end, as the package takes them; 256 where there are none."""
    begin, end = list(data.lstrip()[:1024]), list(data.rstrip()[-1024:])
    row = begin + [256] * (2048 - len(begin) - len(end)) + end
    return tensor("bytes", [row], "INT32")


def test_sentences_of_one_length_are_embedded_in_one_run_as_if_alone(
    run: Run, minilm: ModelFile
) -> None:
    service = TensorHouse().add("minilm", Path(minilm.path)).build()
    sentences = [sentence(101, 7592, word, 102) for word in (2088, 2154, 2305)]

    async def main() -> None:
        model = await service.ready("minilm")
        assert model.max_batch_size == 32  # its inputs and outputs begin with `batch`
        assert model.outputs == (TensorSpec("last_hidden_state", "FP32", (-1, -1, 384)),)
        alone = [await infer(service, ask("minilm", *each)) for each in sentences]
        together = await asyncio.gather(
            *(infer(service, ask("minilm", *each)) for each in sentences)
        )
        for one, other in zip(alone, together, strict=True):
            a, b = (answer.outputs[0].array.ravel() for answer in (one, other))
            cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
            assert cosine > 0.99  # eight bits are scaled by what is in the run
        assert service.counts("minilm").runs_by_rows.keys() == {1, 3}
        unknown = await refusal(service, ask("minilm", *sentence(101, 99_999, 102)))
        assert unknown.code == Code.INVALID_REQUEST
        await service.close(1)

    run(main())


def test_files_are_told_apart_in_one_run(run: Run, magika: ModelFile) -> None:
    service = TensorHouse().add("magika", Path(magika.path), max_batch_size=16).build()

    async def main() -> None:
        await service.load("magika")
        answers = await asyncio.gather(
            *(infer(service, ask("magika", features(data))) for data in KINDS.values())
        )
        assert [int(one.outputs[0].array.argmax()) for one in answers] == list(KINDS)
        assert service.counts("magika").runs_by_rows.keys() == {3}
        await service.close(1)

    run(main())
