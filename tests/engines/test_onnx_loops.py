"""Which models run as long as the shapes of their inputs say, by what is in their graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper
from tests import onnx_models

from headrace.engines.onnx_loops import is_steady
from headrace.engines.onnx_nodes import Graph, Node, read_graph

node = helper.make_node


def steady(path: Path, nodes: list[Any]) -> bool:
    """Of a model of these nodes that takes ``n`` (one INT64) and ``x`` (a row of FP32) and gives ``y``."""
    inputs = [onnx_models.tensor("n", "INT64", (1,)), onnx_models.tensor("x", "FP32", ("long",))]
    outputs = [onnx_models.tensor("y", "FP32", ("far",))]
    graph = read_graph(str(onnx_models.write(path / "m.onnx", nodes, inputs, outputs)))
    assert graph is not None
    return is_steady(graph, ("n", "x"))


SIZED = {
    "Expand": [node("Expand", ["x", "n"], ["y"])],
    "Tile": [node("Tile", ["x", "n"], ["y"])],
    "ConstantOfShape": [node("ConstantOfShape", ["n"], ["y"])],
    "Range": [
        node("Squeeze", ["n"], ["one"]),
        node("Range", ["zero", "one", "step"], ["y"]),
    ],
    "AffineGrid": [node("AffineGrid", ["theta", "n"], ["y"])],
    "MaxUnpool": [node("MaxUnpool", ["x", "places", "n"], ["y"])],
    "Resize, as it was": [node("Resize", ["x", "n"], ["y"])],
    "Microsoft's": [
        node("CropAndResize", ["x", "rois", "which", "n"], ["y"], domain="com.microsoft")
    ],
    "somebody's": [node("Anything", ["x"], ["y"], domain="org.example")],
    "behind others": [node("Add", ["n", "n"], ["m"]), node("Tile", ["x", "m"], ["y"])],
}


@pytest.mark.parametrize("nodes", SIZED.values(), ids=SIZED)
def test_a_length_that_a_client_sends_makes_a_run_of_any_length(
    tmp_path: Path, nodes: list[Any]
) -> None:
    assert not steady(tmp_path, nodes)


def test_a_length_that_an_input_s_shape_says_does_not(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["long"]),
        node("Add", ["long", "long"], ["twice"]),
        node("Expand", ["x", "twice"], ["y"]),
    ]
    assert steady(tmp_path, nodes)


def test_nor_does_a_value_that_is_only_computed_with(tmp_path: Path) -> None:
    assert steady(tmp_path, [node("Tile", ["x", "times"], ["z"]), node("Add", ["z", "n"], ["y"])])


def test_a_length_within_a_branch_counts(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [node("Expand", ["x", "n"], ["z"])], "b", [], [onnx_models.tensor("z", "FP32", ("far",))]
    )
    either = node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    assert not steady(tmp_path, [either])


def test_a_graph_is_read_as_it_was_written(tmp_path: Path) -> None:
    graph = read_graph(str(onnx_models.loop(tmp_path / "m.onnx")))
    body = Graph(
        ("i", "go", "v"), (Node("Identity", ("go",), ("goes",)), Node("Identity", ("v",), ("w",)))
    )
    assert graph == Graph(("count", "x"), (Node("Loop", ("count", "", "x"), ("y",), (body,)),))


@pytest.mark.parametrize("content", [b"\x3a\x7fcut short", b"\xff\xff\xff", b"\x0b"])
def test_what_is_no_model_has_no_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert read_graph(str(path)) is None
    assert not is_steady(None, ())


def test_nor_has_a_model_with_functions_of_its_own(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes() + b"\xca\x01\x00")
    assert read_graph(str(path)) is None
