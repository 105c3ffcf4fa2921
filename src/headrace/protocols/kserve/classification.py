"""The classes of an output, the highest first, in place of its elements.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.domain.tensors import Tensor, TensorModel
from headrace.protocols.body import refuse
from headrace.protocols.kserve.datatypes import MAX_STRINGS

_NO_NUMBERS = frozenset(("BOOL", "BYTES"))
_AT_ONCE = 16 * 1024
"""Elements that are looked through in less time than a thread is asked in."""


async def classified(tensor: Tensor, count: int, model: TensorModel) -> Tensor:
    """``BYTES`` of the shape ``[rows, count]``, without rows where the model has no batch: each class as
    ``value:index``, and its label behind that where the model has one. Where there are fewer classes, all of them.
    Raises ``INVALID_REQUEST`` for what has no numbers, and for too many."""
    path = f"outputs.{tensor.name}"
    if tensor.datatype in _NO_NUMBERS:
        raise refuse(path, f"is {tensor.datatype}, of which nothing is the highest")
    array = _numbers(tensor)
    rows = array.shape[:1] if model.max_batch_size and array.ndim else ()
    flat = array.reshape(*(rows or (1,)), math.prod(array.shape[len(rows) :]))
    count = min(count, flat.shape[1])
    if flat.shape[0] * count > MAX_STRINGS:
        said = f"has {flat.shape[0]} times {count} classes; {MAX_STRINGS} are the most"
        raise refuse(path, said)
    labels = model.labels.get(tensor.name, ())
    if flat.size > _AT_ONCE:
        found = await asyncio.to_thread(_highest, flat, count, labels)
    else:
        found = _highest(flat, count, labels)
    return Tensor(tensor.name, "BYTES", (*rows, count), found.reshape(*rows, count))


def _numbers(tensor: Tensor) -> Any:
    if tensor.datatype == "BF16":
        return (tensor.array.astype(np.uint32) << 16).view(np.float32)
    return tensor.array


def _highest(rows: Any, count: int, labels: Sequence[str]) -> Any:
    """Of each row; of equal ones the first, and what is no number last."""
    found = np.empty((len(rows), count), dtype=object)
    order = np.argsort(_falling(rows), axis=1, kind="stable")[:, :count]
    values = np.take_along_axis(rows, order, axis=1)
    for index, classes in enumerate(zip(values.tolist(), order.tolist(), strict=True)):
        found[index] = [
            _said(value, number, labels) for value, number in zip(*classes, strict=True)
        ]
    return found


def _falling(rows: Any) -> Any:
    """What sorts the highest first."""
    return -rows if rows.dtype.kind == "f" else ~rows


def _said(value: Any, number: int, labels: Sequence[str]) -> bytes:
    """As C++'s ``std::to_string`` has the value."""
    text = f"{value:f}:{number}" if isinstance(value, float) else f"{value}:{number}"
    label = labels[number] if number < len(labels) else ""
    return (f"{text}:{label}" if label else text).encode()
