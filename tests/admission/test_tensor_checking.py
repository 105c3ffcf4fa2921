"""What a model cannot take is refused with the input's name and the field that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.admission.tensor_checking import Taken, check, has_nan
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, Tensor, TensorRequest, TensorSpec

INPUTS = (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,)))
OUTPUTS = (TensorSpec("y", "FP32", (-1,)),)
TAKEN = Taken(INPUTS, OUTPUTS, 4, forbid_nan=True)


def tensor(name: str, datatype: Any, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, datatype, shape, np.zeros(shape, NUMPY_TYPES[datatype]))


def request(*inputs: Tensor, outputs: tuple[str, ...] = ()) -> TensorRequest:
    return TensorRequest("m", inputs, outputs)


A, B = tensor("a", "FP32", (3, 2)), tensor("b", "INT64", (3,))


def test_rows_are_those_of_the_batch_in_any_order_of_the_inputs() -> None:
    assert check(request(A, B, outputs=("y",)), TAKEN) == 3
    assert check(request(B, A), TAKEN) == 3


def test_without_a_batch_a_request_is_one_row_of_any_length() -> None:
    taken = Taken((TensorSpec("b", "INT64", (-1,)),), OUTPUTS, 0)
    assert check(request(tensor("b", "INT64", (1000,))), taken) == 1
    assert check(request(tensor("b", "INT64", (0,))), taken) == 1


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        (request(A), "inputs", "The input b is missing; the model needs a, b"),
        (request(A, B, A), "inputs", "The input a comes twice"),
        (request(A, tensor("c", "FP32", (3,)), B), "inputs[1].name", "no input 'c'; it has a, b"),
        (request(A, B, outputs=("z",)), "outputs[0].name", "no output 'z'; it has y"),
        (
            request(B, tensor("a", "FP64", (3, 2))),
            "inputs[1].datatype",
            "The input a is FP32 at this model, not FP64",
        ),
        (
            request(tensor("a", "FP32", (3,)), B),
            "inputs[0].shape",
            r"The input a has 2 dimensions, \[-1, 2\], not 1",
        ),
        (
            request(tensor("a", "FP32", (3, 3)), B),
            "inputs[0].shape",
            r"The input a has the shape \[-1, 2\], not \[3, 3\]",
        ),
        (
            request(tensor("a", "FP32", (5, 2)), tensor("b", "INT64", (5,))),
            "inputs[0].shape",
            "The input a has a batch of 5; this model takes 1 to 4 rows",
        ),
        (
            request(tensor("a", "FP32", (0, 2)), tensor("b", "INT64", (0,))),
            "inputs[0].shape",
            "The input a has a batch of 0",
        ),
        (
            request(A, tensor("b", "INT64", (2,))),
            "inputs[1].shape",
            "The input b has a batch of 2, other inputs one of 3",
        ),
        (
            request(Tensor("a", "FP32", (3, 2), np.full((3, 2), np.nan, np.float32)), B),
            "inputs[0].data",
            "The input a has NaN, which this model forbids",
        ),
    ],
)
def test_what_cannot_be_taken_is_named(given: TensorRequest, param: str, words: str) -> None:
    with pytest.raises(HeadraceError, match=words) as caught:
        check(given, TAKEN)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_REQUEST, param)


def test_nan_is_taken_where_it_is_not_forbidden() -> None:
    nan = Tensor("a", "FP32", (3, 2), np.full((3, 2), np.nan, np.float32))
    assert check(request(nan, B), Taken(INPUTS, OUTPUTS, 4)) == 3


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_one_nan_among_many_is_found_and_infinities_are_none(datatype: Any) -> None:
    array = np.array([[1.0, np.inf], [-np.inf, 2.0]], NUMPY_TYPES[datatype])
    assert not has_nan(Tensor("a", datatype, (2, 2), array))
    array[1, 0] = np.nan
    assert has_nan(Tensor("a", datatype, (2, 2), array))


def test_nan_of_bfloat16_is_found_by_its_bits() -> None:
    numbers = np.array([0x3F80, 0x7F80, 0xFF80, 0x0000], np.uint16)  # 1, inf, -inf, 0
    assert not has_nan(Tensor("a", "BF16", (4,), numbers))
    for nan in (0x7FC0, 0xFF81):
        numbers[3] = nan
        assert has_nan(Tensor("a", "BF16", (4,), numbers))


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_nothing_has_no_nan(datatype: Any) -> None:
    assert not has_nan(tensor("a", datatype, (0, 2)))
