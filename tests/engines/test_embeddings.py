"""How engines' own embeddings are read."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from typing import Any

import pytest

from headrace.domain.embeddings import cut, float32
from headrace.domain.errors import Code, HeadraceError
from headrace.engines.embeddings import embedded, embedding_fields

RAW = array("f", [0.25, -1.0])


def entry(index: int, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def body(*data: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"data": data, **more}).encode()


def test_numbers_and_base64_are_read_in_the_order_of_the_inputs() -> None:
    said = body(
        entry(1, b64encode(RAW.tobytes()).decode()),
        entry(0, [1.5, 0.1]),
        usage={"prompt_tokens": 4, "total_tokens": 4},
        model="theirs",
    )
    found = embedded(said, 2)
    assert found.prompt_tokens == 4
    assert [vector.tolist() for vector in found.vectors] == [[1.5, 0.1], [0.25, -1.0]]


def test_an_engine_that_does_not_count_counts_nothing() -> None:
    assert embedded(body(entry(0, [1.0])), 1).prompt_tokens == 0


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"{}",
        body(),
        body(entry(0, [1.0]), entry(0, [1.0])),
        body(entry(0, [1.0]), entry(2, [1.0])),
        body(entry(0, "no base64"), entry(1, [1.0])),
        body(entry(0, "AAA="), entry(1, [1.0])),
        body(entry(0, ["a"]), entry(1, [1.0])),
    ],
)
def test_what_is_no_answer_says_so(said: bytes) -> None:
    with pytest.raises(HeadraceError) as failed:
        embedded(said, 2)
    assert failed.value.code is Code.ENGINE_FAILED


def test_what_was_not_asked_for_is_not_told() -> None:
    asked = embedding_fields("m", ("a",), dimensions=None, user="u")
    assert asked == {"model": "m", "input": ("a",), "encoding_format": "base64", "user": "u"}


def test_float32_of_any_numbers() -> None:
    assert float32(array("d", RAW)) == float32(RAW) == RAW.tobytes()


def test_the_beginning_of_a_vector_has_length_1() -> None:
    assert cut(array("d", [3.0, 4.0, 12.0]), 2).tolist() == pytest.approx([0.6, 0.8])
    assert cut(array("d", [0.0, 0.0]), 1).tolist() == [0.0]
