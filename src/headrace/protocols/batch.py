"""Many generations that are answered together: each item in its place, the answer once the last is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from headrace.domain.errors import HeadraceError
from headrace.protocols.collector import Collector
from headrace.protocols.fold import Fold
from headrace.protocols.port import Generation

T = TypeVar("T")
Render = Callable[[Generation, Fold | HeadraceError], T]

MAX_BATCH = 256
"""Items of one batch; more belong in a file of requests."""


class Batch(Generic[T]):
    """``render``: from a generation and its folded log to its item. ``done``: gets the items, in order."""

    def __init__(self, size: int, render: Render[T], done: Callable[[list[T]], None]) -> None:
        self._render = render
        self._done = done
        self._items: dict[int, T] = {}
        self._size = size
        self._submitted = self._closed = False
        self._collectors: list[Collector] = []

    def put(self, position: int, item: T) -> None:
        self._items[position] = item
        self._tell_if_done()

    def wait(self, position: int, generation: Generation) -> None:
        def done(result: Fold | HeadraceError) -> None:
            self.put(position, self._render(generation, result))

        collector = Collector(done=done)
        self._collectors.append(collector)
        collector.attach(generation, client=True)
        if self._closed:
            collector.close()

    def submitted(self) -> None:
        """All items are put or waited for: nothing is told before that."""
        self._submitted = True
        self._tell_if_done()

    def close(self) -> None:
        """The client left: so do all readers."""
        self._closed = True
        for collector in self._collectors:
            collector.close()

    def _tell_if_done(self) -> None:
        if self._submitted and len(self._items) == self._size:
            self._done([self._items[position] for position in range(self._size)])
