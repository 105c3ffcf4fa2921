"""Hooks that the benchmarks put into the server."""

from __future__ import annotations

from headrace.streams.hooks import BaseHook


class Ballast(BaseHook):
    """Keeps ``objects`` objects alive that the garbage collector tracks, as a large application would."""

    def __init__(self, objects: int) -> None:
        self._kept = [[number] for number in range(objects)]
