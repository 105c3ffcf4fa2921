"""ONNX's types of tensors (https://onnx.ai/onnx/intro/concepts.html#element-type) and ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import Datatype, TensorSpec

BFLOAT16 = 16
"""``onnx.TensorProto.BFLOAT16``."""

_DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


def spec(node: Any) -> TensorSpec:
    """Of an ``onnxruntime.NodeArg``. Raises ``ENGINE_UNAVAILABLE`` for what is no tensor of these types."""
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        text = (
            f"its {node.name} is a {node.type}: Headrace serves tensors, of the types of KServe V2"
        )
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, text)
    return TensorSpec(node.name, datatype, tuple(_length(one) for one in node.shape))


def decoded(name: str, texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """BYTES as ONNX has them: texts. Raises ``INVALID_REQUEST`` for what is not UTF-8."""
    try:
        items = [item.decode() if isinstance(item, bytes) else item for item in texts.flat]
    except UnicodeDecodeError as error:
        text = f"{name}: ONNX models take texts; an element is not UTF-8: {error.reason}."
        raise HeadraceError(Code.INVALID_REQUEST, text, param=name) from None
    return _objects(items, texts.shape)


def encoded(texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Texts of an output as BYTES."""
    return _objects([str(item).encode() for item in texts.flat], texts.shape)


def _objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    made = np.empty(len(items), object)
    made[:] = items
    return made.reshape(shape)


def _length(dimension: Any) -> int:
    """-1 for a dimension that has a name, or nothing."""
    return dimension if isinstance(dimension, int) and dimension >= 0 else -1
