"""Waiting tickets by a key that does not change while they wait, least first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

from headrace.scheduling.policy import Ticket

Entry = tuple[float, int, Ticket]
"""Key, number of the stay, ticket. Equal keys: who joined first. It is stale once the ticket's stay is another."""

SLACK = 64
"""Stale entries that are not worth a clean-up."""


class TicketHeap:
    """A ticket leaves by giving up its stay; its entry is dropped when it comes to the top, or when stale ones
    are the majority. ``waiting``: how many are not stale."""

    __slots__ = ("_entries", "waiting")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.waiting = 0

    def push(self, key: float, ticket: Ticket) -> None:
        self.waiting += 1
        heappush(self._entries, (key, ticket.stay, ticket))

    def first(self) -> Entry | None:
        """The least entry that is not stale."""
        entries = self._entries
        while entries:
            entry = entries[0]
            if entry[2].stay == entry[1]:
                return entry
            heappop(entries)
        return None

    def pop(self) -> None:
        """The :meth:`first` one is in this heap no more, though its stay goes on."""
        heappop(self._entries)
        self.waiting -= 1

    def left(self) -> None:
        """One of its tickets has given up its stay."""
        self.waiting -= 1
        entries = self._entries
        if len(entries) > 2 * self.waiting + SLACK:
            entries[:] = [entry for entry in entries if entry[2].stay == entry[1]]
            heapify(entries)
            self.waiting = len(entries)

    def in_order(self) -> Iterator[Entry]:
        """All entries, least first; the heap must not change meanwhile."""
        return (entry for entry in in_order(self._entries) if entry[2].stay == entry[1])


E = TypeVar("E", bound=tuple[Any, ...])


def in_order(heap: Sequence[E]) -> Iterator[E]:
    """The entries of a heap, least first, each found in O(log n) and without moving any."""
    candidates = [(heap[0], 0)] if heap else []
    while candidates:
        entry, at = heappop(candidates)
        for child in range(2 * at + 1, min(2 * at + 3, len(heap))):
            heappush(candidates, (heap[child], child))
        yield entry
