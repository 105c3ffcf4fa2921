"""The highest classes of an output, as Triton's extension has them."""

from __future__ import annotations

import asyncio
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from headrace.domain.errors import HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, Datatype, Tensor, TensorModel
from headrace.protocols.kserve.classification import classified

LABELS = {"y": ("apple", "", "pickle")}


def classes(
    array: Any,
    count: int,
    datatype: Datatype = "FP32",
    *,
    batch: int = 0,
    labels: dict[str, tuple[str, ...]] | None = None,
) -> Tensor:
    model = TensorModel("m", "1", ("1",), "", (), (), batch, "ready", labels=labels or {})
    tensor = Tensor("y", datatype, array.shape, array)
    return asyncio.run(classified(tensor, count, model))


def test_the_documents_example() -> None:
    found = classes(np.array([1, 5, 10, 4], np.int32), 2, "INT32", labels=LABELS)
    assert (found.name, found.datatype, found.shape) == ("y", "BYTES", (2,))
    assert found.array.tolist() == [b"10:2:pickle", b"5:1"]


def test_a_batch_has_the_highest_of_each_row() -> None:
    array = np.array([[[1, 2], [3, 4]], [[8, 7], [6, 5]]], np.float32)
    found = classes(array, 3, batch=8)
    assert found.shape == (2, 3)
    assert found.array.tolist() == [
        [b"4.000000:3", b"3.000000:2", b"2.000000:1"],
        [b"8.000000:0", b"7.000000:1", b"6.000000:2"],
    ]
    assert classes(array, 2).array.tolist() == [b"8.000000:4", b"7.000000:5"]


def test_there_are_no_more_than_there_are() -> None:
    assert classes(np.zeros((2, 3), np.float32), 9, batch=8).shape == (2, 3)
    assert classes(np.zeros((0, 3), np.float32), 2, batch=8).shape == (0, 2)
    assert classes(np.zeros((2, 0), np.float32), 2, batch=8).shape == (2, 0)
    assert classes(np.float32(7).reshape(()), 2, batch=8).array.tolist() == [b"7.000000:0"]


def test_of_equal_ones_the_first_and_no_number_last() -> None:
    array = np.array([np.nan, 1, -np.inf, np.inf, 1], np.float64)
    assert classes(array, 5, "FP64").array.tolist() == [
        *(b"inf:3", b"1.000000:1", b"1.000000:4", b"-inf:2", b"nan:0"),
    ]


@pytest.mark.parametrize(
    "datatype", [name for name in NUMPY_TYPES if name not in ("BOOL", "BYTES")]
)
def test_all_types_of_numbers_by_their_own_order(datatype: Datatype) -> None:
    if datatype == "BF16":
        array: Any = np.array([-2, 0.5, 3], ml_dtypes.bfloat16).view(np.uint16)
        expected = [b"3.000000:2", b"0.500000:1", b"-2.000000:0"]
    elif datatype.startswith("FP"):
        array = np.array([-2, 0.5, 3], NUMPY_TYPES[datatype])
        expected = [b"3.000000:2", b"0.500000:1", b"-2.000000:0"]
    else:
        bounds = np.iinfo(NUMPY_TYPES[datatype])
        array = np.array([bounds.min, bounds.max, 5], NUMPY_TYPES[datatype])
        said = [(bounds.max, 1), (5, 2), (bounds.min, 0)]
        expected = [f"{value}:{index}".encode() for value, index in said]
    assert classes(array, 3, datatype).array.tolist() == expected


def test_many_are_found_beside_everything_else() -> None:
    array = np.arange(100_000, dtype=np.int64)
    assert classes(array, 2, "INT64").array.tolist() == [b"99999:99999", b"99998:99998"]


@pytest.mark.parametrize(
    ("array", "datatype", "said"),
    [
        (np.array([True]), "BOOL", "`outputs.y` is BOOL, of which nothing is the highest"),
        (np.array([b"a"], object), "BYTES", "`outputs.y` is BYTES, of which nothing"),
        (np.zeros((4, 100_000), np.float32), "FP32", "has 4 times 99999 classes; 262144"),
    ],
)
def test_what_has_none(array: Any, datatype: Datatype, said: str) -> None:
    with pytest.raises(HeadraceError, match=said):
        classes(array, 99_999, datatype, batch=8)
