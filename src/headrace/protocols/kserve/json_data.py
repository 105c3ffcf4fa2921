"""Tensors as JSON has them: one flat array, or arrays in arrays as the shape is.

Slow, since everything is a number of Python in between: clients that can send bytes should.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from headrace.domain.tensors import Datatype, Tensor
from headrace.protocols.body import COMPLAINTS, invalid_json, refuse
from headrace.protocols.kserve.datatypes import DTYPES, shape_error

_KINDS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "O": str}
"""What an element is in JSON, by the kind of its numpy type."""
_ONLY_BYTES = frozenset(("FP16", "BF16"))
"""Those that have no form in JSON."""


def from_json(
    name: str, datatype: Datatype, shape: tuple[int, ...], data: bytes | memoryview, path: str
) -> Tensor:
    """``data``: undecoded. Raises ``INVALID_REQUEST``."""
    if datatype in _ONLY_BYTES:
        raise refuse(
            f"{path}.datatype", f"is {datatype}, which has no form in JSON: send it as bytes"
        )
    where = f"{path}.data"
    values = _decoded(datatype, len(shape), data, where)
    if datatype == "BYTES":
        array = strings(_encoded(values), shape, where)
    else:
        array = numbers(values, datatype, shape, where)
    return Tensor(name, datatype, shape, array)


def to_json(tensor: Tensor) -> list[Any]:
    """Its elements as one flat array; what is no number (NaN, infinity) will be null. Raises ``INVALID_REQUEST`` where
    JSON has no form for it."""
    where = f"outputs.{tensor.name}"
    if tensor.datatype in _ONLY_BYTES:
        said = f"is {tensor.datatype}, which has no form in JSON: ask for `binary_data`"
        raise refuse(where, said)
    values: list[Any] = tensor.array.reshape(-1).tolist()
    if tensor.datatype != "BYTES":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise refuse(where, "is not all UTF-8: ask for `binary_data`") from None


def _decoded(datatype: Datatype, rank: int, data: bytes | memoryview, path: str) -> list[Any]:
    kind = _KINDS[DTYPES[datatype].kind]
    try:
        return _decoder(kind, 1).decode(data)
    except msgspec.ValidationError as complaint:
        if rank < 2:
            raise refuse(path, _said(complaint, datatype)) from None
    except COMPLAINTS as complaint:
        raise invalid_json(complaint) from None
    try:
        return _decoder(kind, rank).decode(data)
    except msgspec.ValidationError as complaint:
        raise refuse(path, _said(complaint, datatype)) from None


@lru_cache(maxsize=256)
def _decoder(kind: type, rank: int) -> msgspec.json.Decoder[list[Any]]:
    """Of arrays in arrays, ``rank`` deep."""
    nested: Any = kind
    for _ in range(rank):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _said(complaint: msgspec.ValidationError, datatype: Datatype) -> str:
    said = str(complaint)
    return f"is no {datatype}, flat or nested as its shape: {said[0].lower()}{said[1:]}"


def numbers(values: list[Any], datatype: Datatype, shape: tuple[int, ...], path: str) -> Any:
    """An array of Python's numbers. Raises ``INVALID_REQUEST`` for one that is none of that type."""
    try:
        with np.errstate(over="raise"):
            array = np.array(values, dtype=DTYPES[datatype])
    except (OverflowError, FloatingPointError):
        raise refuse(path, f"has a number in it that is none of {datatype}") from None
    except ValueError:
        raise refuse(path, "has arrays of different lengths in it") from None
    return _shaped(array, shape, path)


def strings(values: list[bytes], shape: tuple[int, ...], path: str) -> Any:
    """An array of ``BYTES``. Raises ``INVALID_REQUEST`` if there are more or fewer than the shape says."""
    if len(values) != math.prod(shape):
        raise shape_error(path, len(values), shape)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _encoded(values: list[Any]) -> list[bytes]:
    """Texts, flat or in lists, as one list of bytes."""
    while values and isinstance(values[0], list):
        values = [item for inner in values for item in inner]
    return [value.encode() for value in values]


def _shaped(array: Any, shape: tuple[int, ...], path: str) -> Any:
    if array.shape == shape:
        return array
    if array.size != math.prod(shape):
        raise shape_error(path, array.size, shape)
    if array.ndim > 1:
        raise refuse(path, f"is nested as {list(array.shape)}; the shape is {list(shape)}")
    return array.reshape(shape)
