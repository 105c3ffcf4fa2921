"""Whether a request is one that its model can take: names, types, ranks, lengths, and NaN where it is forbidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import msgspec
import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import Tensor, TensorRequest, TensorSpec

_NAN_BITS = 0x7F80
"""A bfloat16 whose bits without the sign are above these is no number."""


class Taken(msgspec.Struct, frozen=True):
    """What a version takes. ``max_batch_size``: 0 where the first dimension is no batch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    forbid_nan: bool = False


def check(request: TensorRequest, taken: Taken) -> int:
    """The rows of a request, 1 where the model has no batch. Raises ``INVALID_REQUEST`` naming the input."""
    given = {tensor.name: index for index, tensor in enumerate(request.inputs)}
    if len(given) < len(request.inputs):
        twice = next(one.name for i, one in enumerate(request.inputs) if given[one.name] != i)
        _refuse("inputs", f"The input {twice} comes twice.")
    if len(given) != len(taken.inputs):
        _refuse_names(given, taken)
    made = [spec.name for spec in taken.outputs]
    for index, name in enumerate(request.outputs):
        if name not in made:
            text = f"The model has no output {_said(name)}; {_has(made)}."
            _refuse(f"outputs[{index}].name", text)
    rows = 0
    for spec in taken.inputs:
        index = given.get(spec.name, -1)
        if index < 0:
            _refuse_names(given, taken)
        tensor = request.inputs[index]
        _check_tensor(index, tensor, spec)
        if taken.max_batch_size:
            rows = _check_rows(index, tensor, rows, taken.max_batch_size)
        if taken.forbid_nan and has_nan(tensor):
            _refuse(
                f"inputs[{index}].data",
                f"The input {tensor.name} has NaN, which this model forbids.",
            )
    return rows or 1


def has_nan(tensor: Tensor) -> bool:
    """Whether an element is not a number; always False for what has no such elements."""
    array = tensor.array
    if not array.size:
        return False
    if tensor.datatype == "BF16":
        return bool(((array & 0x7FFF) > _NAN_BITS).any())
    if tensor.datatype not in ("FP16", "FP32", "FP64"):
        return False
    return bool(
        np.isnan(array.min())
    )  # the least is NaN where one is; needs no memory of the array's size


def _refuse_names(given: dict[str, int], taken: Taken) -> NoReturn:
    """They are not those of the model's inputs."""
    known = [spec.name for spec in taken.inputs]
    for name, index in given.items():
        if name not in known:
            text = f"The model has no input {_said(name)}; {_has(known)}."
            _refuse(f"inputs[{index}].name", text)
    missing = next(name for name in known if name not in given)
    _refuse("inputs", f"The input {missing} is missing; the model needs {', '.join(known)}.")


def _check_tensor(index: int, tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype != spec.datatype:
        text = f"The input {spec.name} is {spec.datatype} at this model, not {tensor.datatype}."
        _refuse(f"inputs[{index}].datatype", text)
    shape = tuple(tensor.array.shape)
    if len(shape) != len(spec.shape):
        text = f"The input {spec.name} has {len(spec.shape)} dimensions, {_shape(spec.shape)}, not {len(shape)}."
        _refuse(f"inputs[{index}].shape", text)
    if any(wanted not in (-1, length) for wanted, length in zip(spec.shape, shape, strict=True)):
        text = f"The input {spec.name} has the shape {_shape(spec.shape)}, not {_shape(shape)}."
        _refuse(f"inputs[{index}].shape", text)


def _check_rows(index: int, tensor: Tensor, rows: int, most: int) -> int:
    found: int = tensor.array.shape[0]
    path = f"inputs[{index}].shape"
    if not 1 <= found <= most:
        _refuse(
            path,
            f"The input {tensor.name} has a batch of {found}; this model takes 1 to {most} rows.",
        )
    if rows not in (0, found):
        _refuse(
            path, f"The input {tensor.name} has a batch of {found}, other inputs one of {rows}."
        )
    return found


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape))


def _has(names: Sequence[str]) -> str:
    return f"it has {', '.join(names)}"


def _said(name: str) -> str:
    return repr(name[:200])


def _refuse(param: str, text: str) -> NoReturn:
    raise HeadraceError(Code.INVALID_REQUEST, text, param=param)
