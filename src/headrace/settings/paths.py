"""Walking a tree of settings by path: ``models[0].replicas[1].url``.

A kind of table is written with empty brackets: ``models[].replicas[]`` are all replicas of all models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Tree = dict[str, Any]


def joined(path: str, key: str) -> str:
    """A key's path, given its table's."""
    return f"{path}.{key}" if path else key


def tables(tree: Tree, kind: str) -> list[tuple[str, Tree]]:
    """All tables of a kind with their paths. What is no table is left for the conversion to refuse."""
    found: list[tuple[str, Any]] = [("", tree)]
    for name in kind.split("."):
        key = name.removesuffix("[]")
        inner = [
            (joined(path, key), node.get(key)) for path, node in found if isinstance(node, dict)
        ]
        found = [item for node in inner for item in _items(*node)] if name.endswith("[]") else inner
    return [(path, node) for path, node in found if isinstance(node, dict)]


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a tree with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, joined(path, key))
    elif isinstance(node, list | tuple) and node and all(isinstance(item, dict) for item in node):
        for index, item in enumerate(node):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, node


def kind_of(path: str) -> str:
    """``models[0].slots`` → ``models[].slots``."""
    return re.sub(r"\[\d+\]", "[]", path)


def _items(path: str, node: Any) -> list[tuple[str, Any]]:
    if not isinstance(node, list | tuple):
        return []
    return [(f"{path}[{index}]", item) for index, item in enumerate(node)]
