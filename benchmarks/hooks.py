"""A user's hook that does nothing but be called: the second hook of "everything switched on"."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.delta import Delta
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook


class Passing(BaseHook):
    """Sees every delta and passes it on."""

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return deltas


class Ballast(BaseHook):
    """Keeps ``objects`` objects alive that the garbage collector tracks, as a large application would."""

    def __init__(self, objects: int) -> None:
        self._kept = [[number] for number in range(objects)]
