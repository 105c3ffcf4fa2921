"""Who was served least: accounts in a line, the counters of VTC.

Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, https://arxiv.org/abs/2401.00588: service is
counted in weighted tokens, divided by the account's weight; of those with somebody waiting the one with the least is
next; one that comes back from idleness is lifted to the least of the others, so that it banks no credit.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar


class Account:
    """``counter``: service received, in weighted tokens divided by ``weight``. ``waiting``: its tickets in the queue,
    ``backlog``: what they are expected to cost; ``running``: those that an engine has. ``listed``: it is in the
    line of its siblings."""

    __slots__ = ("backlog", "counter", "listed", "running", "waiting", "weight")

    def __init__(self, weight: float) -> None:
        self.counter = 0.0
        self.weight = weight
        self.waiting = 0
        self.backlog = 0.0
        self.running = 0
        self.listed = False

    @property
    def horizon(self) -> float:
        """Its counter once all of its tickets have run."""
        return self.counter + self.backlog / self.weight


A = TypeVar("A", bound=Account)


class Line(Generic[A]):
    """Sibling accounts with somebody waiting, the least counter first. Counters only grow, so an entry that is
    out of date is too low: it is put right when it comes to the top. ``floor``: the counter of who was
    served last, which is where an account begins that finds nobody waiting."""

    __slots__ = ("_entries", "_number", "floor")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, A]] = []
        self._number = 0
        self.floor = 0.0

    def join(self, account: A) -> None:
        """It has somebody waiting again: lifted to the least of the others."""
        first = self.first()
        least = self.floor if first is None else first.counter
        if account.counter < least:
            account.counter = least
        if not account.listed:
            account.listed = True
            self._number += 1
            heappush(self._entries, (account.counter, self._number, account))

    def first(self) -> A | None:
        """Who has the least counter of those with somebody waiting."""
        entries = self._entries
        while entries:
            counter, number, account = entries[0]
            if not account.waiting:
                heappop(entries)
                account.listed = False
            elif counter < account.counter:
                heapreplace(entries, (account.counter, number, account))
            else:
                return account
        return None

    def in_order(self) -> Iterator[A]:
        """All with somebody waiting, each found in O(log n); nothing may change meanwhile."""
        entries = self._entries
        candidates = [(entries[0][0], 0, False)] if entries else []
        while candidates:
            counter, at, right = heappop(candidates)
            account = entries[at][2]
            if not right:
                for child in range(2 * at + 1, min(2 * at + 3, len(entries))):
                    heappush(candidates, (entries[child][0], child, False))
            if right or counter == account.counter:
                if account.waiting:
                    yield account
            else:
                heappush(candidates, (account.counter, at, True))

    def served(self, account: A) -> None:
        """One of its requests runs."""
        if account.counter > self.floor:
            self.floor = account.counter
