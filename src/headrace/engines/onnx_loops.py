"""Whether how long a model runs depends on more than the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.engines.onnx_nodes import Graph, Node

_REPEATING = frozenset(
    (
        "Loop",
        "com.microsoft::BeamSearch",
        "com.microsoft::GreedySearch",
        "com.microsoft::Sampling",
        "com.microsoft::WhisperBeamSearch",
    )
)
"""Values among their inputs say how often something is done. https://onnx.ai/onnx/operators/onnx__Loop.html"""
_MEASURED: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Tile": (1,),
    "Upsample": (1,),
    "com.microsoft::CropAndResize": (3,),
    "com.microsoft::Pad": (1,),
    "com.microsoft::Range": (0, 1, 2),
}
"""Values of these inputs say how large the output is, which else is no larger than the inputs' shapes make it."""
_DOMAINS = frozenset(("", "ai.onnx.ml", "com.microsoft"))
"""What operators of any other do with a value is not known."""
_OF_SHAPES = frozenset(("Shape", "Size"))
"""What they give is no value of an input, but its shape's."""


def is_steady(graph: Graph | None, inputs: Iterable[str]) -> bool:
    """Whether the shapes of the model's inputs, of these names, tell how much there is to do. ``graph``: None where it
    is not known, nor is this then."""
    return graph is not None and _is_steady(graph, set(inputs))


def _is_steady(graph: Graph, sent: set[str]) -> bool:
    """``sent``: names of what depends on values that a client sends."""
    for node in graph.nodes:
        if node.op in _REPEATING or _measures(node, sent):
            return False
        for inner in node.graphs:
            if not _is_steady(inner, sent | set(inner.inputs)):
                return False
        if node.op not in _OF_SHAPES and (node.graphs or not sent.isdisjoint(node.inputs)):
            sent.update(node.outputs)
    return True


def _measures(node: Node, sent: set[str]) -> bool:
    domain = node.op.rpartition("::")[0]
    if domain not in _DOMAINS and not sent.isdisjoint(node.inputs):
        return True
    at = _MEASURED.get(node.op, ())
    return any(index < len(node.inputs) and node.inputs[index] in sent for index in at)
