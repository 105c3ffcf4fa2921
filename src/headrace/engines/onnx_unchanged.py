"""Outputs of a model that are one of its inputs, byte for byte: written over that input they change nothing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from headrace.engines.onnx_nodes import Graph

IDENTITY = frozenset(("Identity",))
"""What it gives is its input, shape and all."""
KEEPING = IDENTITY | {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
"""What these give has the bytes of their first input."""


def unchanged(
    graph: Graph | None, inputs: Iterable[str], outputs: Iterable[str], by: Container[str] = KEEPING
) -> Mapping[str, str]:
    """By the output's name, the input that it is, through no nodes but such. ``graph``: None where it is not known; nor
    are these then."""
    if graph is None:
        return {}
    source = {name: name for name in inputs}
    for node in graph.nodes:
        if node.op in by and node.inputs[0] in source:
            source[node.outputs[0]] = source[node.inputs[0]]
    return {name: source[name] for name in outputs if name in source}
