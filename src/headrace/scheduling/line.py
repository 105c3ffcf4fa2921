"""Who was served least: accounts in a line, the counters of VTC.

Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, https://arxiv.org/abs/2401.00588: service is
counted in weighted tokens, divided by the account's weight; of those with somebody waiting the one with the least is
next; one that comes back from idleness is lifted to the least of the others, so that it banks no credit. A prompt is
charged before an engine says what it cost, and so there are refunds: never below where the account was lifted to.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

from headrace.scheduling.ticket_heap import SLACK


class Account:
    """``counter``: service received, in weighted tokens divided by ``weight``. ``lifted``: the least that it can have
    been, since it came back from idleness. ``waiting``: its tickets in the queue, ``backlog``: what they are expected
    to cost; ``running``: those that an engine has. ``entry``: the number of its entry in the line of its siblings;
    0: it has none."""

    __slots__ = ("backlog", "counter", "entry", "lifted", "running", "waiting", "weight")

    def __init__(self, weight: float) -> None:
        self.counter = 0.0
        self.lifted = 0.0
        self.weight = weight
        self.waiting = 0
        self.backlog = 0.0
        self.running = 0
        self.entry = 0

    @property
    def horizon(self) -> float:
        """Its counter once all of its tickets have run."""
        return self.counter + self.backlog / self.weight


A = TypeVar("A", bound=Account)


class Line(Generic[A]):
    """Sibling accounts with somebody waiting, the least counter first. Counters grow, so an entry that is out of date
    is too low: it is put right when it comes to the top. One whose counter fell gets another entry, and the old one is
    dropped there, or with the others when they are the majority. ``floor``: the counter of who was served last,
    which is where an account begins that finds nobody waiting."""

    __slots__ = ("_entries", "_fallen", "_number", "floor")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, A]] = []
        self._fallen = 0
        self._number = 0
        self.floor = 0.0

    def join(self, account: A) -> None:
        """It has somebody waiting again: lifted to the least of the others."""
        first = self.first()
        least = self.floor if first is None else first.counter
        if account.lifted < least:
            account.lifted = least
        if account.counter < least:
            account.counter = least
        if not account.entry:
            self._push(account)

    def first(self) -> A | None:
        """Who has the least counter of those with somebody waiting."""
        entries = self._entries
        while entries:
            counter, number, account = entries[0]
            if number != account.entry:
                heappop(entries)
                self._fallen -= 1
            elif not account.waiting:
                heappop(entries)
                account.entry = 0
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
            _, number, account = entries[at]
            if not right:
                for child in range(2 * at + 1, min(2 * at + 3, len(entries))):
                    heappush(candidates, (entries[child][0], child, False))
            if number != account.entry:
                continue
            if right or counter == account.counter:
                if account.waiting:
                    yield account
            else:
                heappush(candidates, (account.counter, at, True))

    def refund(self, account: A, service: float) -> None:
        """It was charged so much too much, in the unit of its counter. What it would have lost anyhow when it came
        back from idleness is not given back."""
        counter = max(account.counter - service, account.lifted)
        if counter >= account.counter:
            return
        account.counter = counter
        if account.entry:
            self._fallen += 1
            account.entry = 0
            if account.waiting:
                self._push(account)
            if self._fallen > len(self._entries) // 2 + SLACK:
                self._entries = [one for one in self._entries if one[1] == one[2].entry]
                heapify(self._entries)
                self._fallen = 0

    def _push(self, account: A) -> None:
        self._number += 1
        account.entry = self._number
        heappush(self._entries, (account.counter, account.entry, account))
