"""Texts of several requests in one run of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import Datatype, TensorSpec
from headrace.engines.joined_texts import JoinedTexts, PendingTexts
from headrace.engines.tensor_engine import Arrays

NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def specs(datatype: Datatype = "INT64") -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, datatype, (-1, -1)) for name in NAMES)


class Model:
    """A token's vector is its id, and one more. ``lost``: rows that it forgets."""

    platform = "model"
    batch_dimension: Any = "named"
    steady = True
    inputs = specs()
    outputs = (TensorSpec("hidden", "FP32", (-1, -1, 2)),)

    def __init__(self, lost: int = 0) -> None:
        self.seen: list[Arrays] = []
        self.lost = lost

    def run(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        self.seen.append(inputs)
        ids = inputs["input_ids"][self.lost :].astype(np.float32)
        ids[ids == 13] = np.nan
        return dict.fromkeys(outputs, np.stack([ids, ids + 1], axis=2))

    def close(self) -> None: ...


def joining(datatype: Datatype = "INT64") -> JoinedTexts:
    return JoinedTexts(specs(datatype), "hidden", 9, normalize=False)


def asked(joining: JoinedTexts, *requests: Sequence[Sequence[int]]) -> list[PendingTexts]:
    return [
        PendingTexts(joining=joining, rows=len(ids), ids=ids, length=max(map(len, ids)))
        for ids in requests
    ]


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
def test_the_model_gets_all_in_one_run_and_each_request_its_own(datatype: Datatype) -> None:
    model, joined = Model(), joining(datatype)
    pending = asked(joined, [(2, 4)], [(1, 2, 3), (5,)])
    one, two = joined.compute(model, pending)
    assert np.allclose(one, [[3, 4]])  # type: ignore[arg-type]
    assert np.allclose(two, [[2, 3], [5, 6]])  # type: ignore[arg-type]
    (inputs,) = model.seen
    assert inputs["input_ids"].tolist() == [[2, 4, 9], [1, 2, 3], [5, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0] * 3] * 3
    assert inputs["position_ids"].tolist() == [[0, 1, 2]] * 3
    assert {str(array.dtype) for array in inputs.values()} == {datatype.lower()}


def test_a_request_whose_vector_is_no_number_fails_alone() -> None:
    joined = joining()
    one, two, three = joined.compute(Model(), asked(joined, [(1,)], [(2,), (13,)], [(3,)]))
    assert isinstance(two, HeadraceError)
    assert two.code is Code.ENGINE_FAILED
    assert "not a number" in two.message
    assert np.allclose(one, [[1, 2]])  # type: ignore[arg-type]
    assert np.allclose(three, [[3, 4]])  # type: ignore[arg-type]


def test_as_many_vectors_as_texts_or_it_is_the_models_fault() -> None:
    joined = joining()
    with pytest.raises(HeadraceError, match="a run of 2 rows") as failed:
        joined.compute(Model(lost=1), asked(joined, [(1,)], [(2,)]))
    assert failed.value.code is Code.ENGINE_FAILED


def test_runs_of_more_texts_or_longer_ones_or_another_manner_are_of_another_kind() -> None:
    joined, other = joining(), joining()
    pending = asked(joined, [(1,)], [(2,)])
    (longer,) = asked(joined, [(1, 2)])
    kinds = [
        joined.kind(pending, 2),
        joined.kind(pending[:1], 1),
        joined.kind([longer], 1),
        other.kind(pending, 2),
    ]
    assert len(set(kinds)) == 4
    assert joined.kind(asked(joined, [(5,), (6,)]), 2) == kinds[0]


def test_a_model_with_an_input_that_no_text_has_gives_no_vectors() -> None:
    pixels = TensorSpec("pixels", "FP32", (-1, 3))
    with pytest.raises(HeadraceError, match="its input pixels") as refused:
        JoinedTexts((*specs(), pixels), "hidden", 0)
    assert (refused.value.code, refused.value.param) == (Code.UNSUPPORTED, "model")
