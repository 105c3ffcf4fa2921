"""Small ONNX models, made when a test needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
Shape = Sequence[int | str]


def tensor(name: str, datatype: str, shape: Shape) -> Any:
    """An input or output; a dimension that is a text is free."""
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def write(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any = ()
) -> Path:
    """A model of these nodes."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(weights))
    opset = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def identity(path: Path, datatype: str = "FP32", shape: Shape = ("batch", 4)) -> Path:
    """``y`` is ``x``."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return write(path, [node], [tensor("x", datatype, shape)], [tensor("y", datatype, shape)])


def unary(path: Path, op: str, shape: Shape = ("batch", 4)) -> Path:
    """``y`` is an operator's of ``x``, both FP32."""
    node = helper.make_node(op, ["x"], ["y"])
    return write(path, [node], [tensor("x", "FP32", shape)], [tensor("y", "FP32", shape)])


def add(path: Path, shape: Shape = ("batch", 2), second: Shape | None = None) -> Path:
    """``sum`` is ``a + b``, ``difference`` is ``a - b``, of INT32."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    inputs = [tensor("a", "INT32", shape), tensor("b", "INT32", second or shape)]
    outputs = [tensor("sum", "INT32", shape), tensor("difference", "INT32", shape)]
    return write(path, nodes, inputs, outputs)


def look_up(path: Path, words: int = 8) -> Path:
    """``vector`` is a row of a table, ten times the word's number. A word beyond the table cannot be computed."""
    table = np.arange(words, dtype=np.float32).reshape(words, 1) * 10
    node = helper.make_node("Gather", ["table", "word"], ["vector"], axis=0)
    weights = [numpy_helper.from_array(table, "table")]
    inputs = [tensor("word", "INT64", ("batch",))]
    return write(path, [node], inputs, [tensor("vector", "FP32", ("batch", 1))], weights)


def loop(path: Path) -> Path:
    """``y`` is ``x``, looked at ``count`` times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Identity", ["v"], ["w"]),
        ],
        "body",
        [tensor("i", "INT64", ()), tensor("go", "BOOL", ()), tensor("v", "FP32", (1,))],
        [tensor("goes", "BOOL", ()), tensor("w", "FP32", (1,))],
    )
    node = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)
    inputs = [tensor("count", "INT64", (1,)), tensor("x", "FP32", (1,))]
    return write(path, [node], inputs, [tensor("y", "FP32", (1,))])


def nonzero(path: Path) -> Path:
    """``where``: the places of what is not 0; its shape depends on what is in ``x``."""
    node = helper.make_node("NonZero", ["x"], ["where"])
    return write(
        path, [node], [tensor("x", "FP32", ("n",))], [tensor("where", "INT64", ("one", "found"))]
    )


def large(path: Path, floats: int) -> Path:
    """A model whose file is as large as so many weights; ``y`` is ``x`` plus the first of them, 1."""
    weights = [numpy_helper.from_array(np.ones(floats, np.float32), "weights")]
    first = numpy_helper.from_array(np.array(0, np.int64), "first")
    nodes = [
        helper.make_node("Gather", ["weights", "first"], ["one"]),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    shape = ("batch", 1)
    inputs, outputs = [tensor("x", "FP32", shape)], [tensor("y", "FP32", shape)]
    return write(path, nodes, inputs, outputs, [*weights, first])
