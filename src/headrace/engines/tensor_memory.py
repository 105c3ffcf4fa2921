"""Outputs in memory that was given for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, TensorSpec

Array = np.ndarray[Any, Any]
Copy = Callable[[Array, Array], None]
"""Makes its first what its second is."""


def view(memory: Array, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """The beginning of ``memory`` (one dimension of ``uint8``) as an output of this shape. Raises
    ``INVALID_REQUEST`` if it is too small, or for BYTES."""
    if spec.datatype == "BYTES":
        raise _no_place(spec, "is BYTES, which has no length that is known before it is computed.")
    dtype = np.dtype(NUMPY_TYPES[spec.datatype])
    size = math.prod(shape) * dtype.itemsize
    if memory.nbytes < size:
        raise _no_place(spec, f"has {size} bytes, and the memory for it only {memory.nbytes}.")
    return memory[:size].view(dtype).reshape(shape)


def moved(array: Array, spec: TensorSpec, memory: Array, copy: Copy = np.copyto) -> Array:
    """An output's copy in ``memory``. Raises as :func:`view`."""
    place = view(memory, spec, array.shape)
    copy(place, array)
    return place


def same_memory(one: Array, other: Array) -> bool:
    """Whether two arrays, each without holes, are of the same bytes."""
    return one.nbytes == other.nbytes and _address(one) == _address(other)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _no_place(spec: TensorSpec, why: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_REQUEST, f"The output {spec.name} {why}", param="outputs")
