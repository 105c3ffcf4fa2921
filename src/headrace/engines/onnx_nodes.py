"""What an ONNX model is made of: its nodes and the names that lead from one to the next, without its weights.

The ``onnx`` package, which reads all of a model, is not needed for that.
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

_ORT = b"ORTM"
"""Behind the first four bytes of an ``.ort`` file, which is in another format."""
_OWN_DOMAINS = frozenset(("", "ai.onnx"))
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INPUT = 1, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_GRAPHS = frozenset((6, 11))
_VALUE_NAME = 1
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


class Node(NamedTuple):
    """``op``: its type, with a domain in front (``com.microsoft::``) if that is not ONNX's own. ``graphs``: what it may
    run, as a ``Loop`` does its body."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graphs: tuple[Graph, ...] = ()


class Graph(NamedTuple):
    """``nodes``: each behind those whose outputs it takes."""

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]


def read_graph(path: str) -> Graph | None:
    """The graph of a model's file; None where that cannot be told: of an ``.ort`` file, or one that has functions of
    its own. Raises ``OSError``."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] == _ORT:
            return None
        with memoryview(data) as view:
            try:
                return _graph_of_model(view)
            except ValueError:
                return None


def _graph_of_model(data: memoryview) -> Graph | None:
    graph = None
    for number, value in _fields(data):
        if number == _MODEL_FUNCTIONS:
            return None
        if number == _MODEL_GRAPH:
            graph = _graph(value)
    return graph


def _graph(data: memoryview) -> Graph:
    inputs, nodes = [], []
    for number, value in _fields(data):
        if number == _GRAPH_NODE:
            nodes.append(_node(value))
        elif number == _GRAPH_INPUT:
            inputs += [_text(name) for each, name in _fields(value) if each == _VALUE_NAME]
    return Graph(tuple(inputs), tuple(nodes))


def _node(data: memoryview) -> Node:
    op = domain = ""
    inputs, outputs, graphs = [], [], []
    for number, value in _fields(data):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_OP:
            op = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            graphs += [_graph(part) for each, part in _fields(value) if each in _ATTRIBUTE_GRAPHS]
    name = op if domain in _OWN_DOMAINS else f"{domain}::{op}"
    return Node(name, tuple(inputs), tuple(outputs), tuple(graphs))


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length, by their numbers. Raises ``ValueError`` for what is none."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _SIZED:
            size, at = _varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            at += 4 if kind == _FOUR_BYTES else 8
        else:
            raise ValueError("no field of a message")
    if at > end:
        raise ValueError("the message ends within a field")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("the message ends within a number")


def _text(data: memoryview) -> str:
    return bytes(data).decode()
