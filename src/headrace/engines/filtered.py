"""A fold whose deltas pass through filters on their way into a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headrace.domain.delta import Delta
from headrace.domain.event import FinishReason, Usage
from headrace.engines.stream import Fold

Filter = Callable[[list[Delta]], list[Delta]]


class FilteredFold:
    """``fold``, with what it makes passed through ``filters``, the first one first."""

    __slots__ = ("_filters", "_fold")

    def __init__(self, fold: Fold, filters: Sequence[Filter]) -> None:
        self._fold = fold
        self._filters = filters

    @property
    def reasons(self) -> Mapping[int, FinishReason]:
        return self._fold.reasons

    @property
    def stop(self) -> str | None:
        return self._fold.stop

    def usage(self) -> Usage:
        return self._fold.usage()

    def take(self, payloads: Sequence[bytes], deltas: list[Delta]) -> bool:
        made: list[Delta] = []
        try:
            return self._fold.take(payloads, made)
        finally:
            for through in self._filters:
                made = through(made)
            deltas += made
