"""Tensors and the bytes that they are on the wire: little-endian, row by row; ``BYTES`` with each one's length first.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, Datatype, Tensor
from headrace.protocols.body import refuse

Data = bytes | bytearray | memoryview

MAX_RANK = 32
MAX_STRINGS = 256 * 1024
"""Elements of a tensor of ``BYTES``: they are taken apart one by one, for which everybody waits."""
_MOST = 1 << 48
_LENGTH_BYTES = 4

DTYPES: dict[Datatype, np.dtype[Any]] = {
    datatype: np.dtype(name).newbyteorder("<") for datatype, name in NUMPY_TYPES.items()
}


def known_datatype(name: str, path: str) -> Datatype:
    """Raises ``INVALID_REQUEST``."""
    if name not in DTYPES:
        raise refuse(f"{path}.datatype", f"must be one of {', '.join(DTYPES)}")
    return name


def checked_shape(shape: Sequence[int], path: str) -> tuple[int, ...]:
    """Raises ``INVALID_REQUEST`` for what is no shape of a tensor that is there."""
    if len(shape) > MAX_RANK:
        raise refuse(f"{path}.shape", f"has more than {MAX_RANK} dimensions")
    if shape and min(shape) < 0:
        raise refuse(f"{path}.shape", "has a dimension below 0")
    if (
        math.prod([length or 1 for length in shape] if 0 in shape else shape) > _MOST
    ):  # numpy asks of empty ones, too
        raise refuse(f"{path}.shape", "is of more elements than any memory has")
    return tuple(shape)


def tensor_of(
    name: str, datatype: Datatype, shape: tuple[int, ...], data: Data, path: str
) -> Tensor:
    """A tensor of the bytes that are it: a view of them, but for ``BYTES``. Raises ``INVALID_REQUEST`` if they are
    more or fewer than the shape says."""
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, _unpacked(data, shape, path))
    size = math.prod(shape) * DTYPES[datatype].itemsize
    if len(data) != size:
        said = f"has {len(data)} bytes; {datatype} of the shape {list(shape)} needs {size}"
        raise refuse(path, said)
    if datatype == "BOOL":
        _check_booleans(data, path)
    return Tensor(name, datatype, shape, np.frombuffer(data, DTYPES[datatype]).reshape(shape))


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor: a view of its memory, but for ``BYTES``."""
    if tensor.datatype == "BYTES":
        return memoryview(_packed(tensor.array))
    array: Any = np.ascontiguousarray(tensor.array).reshape(-1)
    return memoryview(array.view(np.uint8))


def _check_booleans(data: Data, path: str) -> None:
    found = np.frombuffer(data, np.uint8)
    if found.size and found.max() > 1:
        raise refuse(path, "is BOOL and has a byte in it that is neither 0 nor 1")


def _packed(array: Any) -> bytes:
    parts: list[bytes] = []
    for item in array.reshape(-1).tolist():
        parts += (len(item).to_bytes(_LENGTH_BYTES, "little"), item)
    return b"".join(parts)


def _unpacked(data: Data, shape: tuple[int, ...], path: str) -> Any:
    count = math.prod(shape)
    if count > MAX_STRINGS:
        said = f"has {count} strings; {MAX_STRINGS} are the most"
        raise refuse(path, said, Code.BODY_TOO_LARGE)
    whole = memoryview(data)
    found = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(whole[at:begin], "little")
        if begin > len(whole) or at > len(whole):
            raise refuse(path, f"ends within its element {index} of {count}")
        found[index] = bytes(whole[begin:at])
    if at != len(whole):
        raise refuse(path, f"has {len(whole) - at} bytes behind its last of {count} elements")
    return found.reshape(shape)


def shape_error(path: str, count: int, shape: tuple[int, ...]) -> HeadraceError:
    """There are ``count`` elements, and the shape is of others."""
    needed = math.prod(shape)
    return refuse(path, f"has {count} elements; the shape {list(shape)} is of {needed}")
