"""What each tenant was served, and who was served least: the counters of VTC, in two levels.

Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, https://arxiv.org/abs/2401.00588: service is
counted in weighted tokens, divided by the tenant's weight; whoever waits and has the least is next; a tenant that
comes back from idleness is lifted to the least of the others, so that it banks no credit.

Above the tenants are priority classes, which share in the same way: a class with share 8 gets eight times the
service of one with share 1 while both have requests waiting, and neither ever waits for all of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

from headrace.scheduling.policy import Ticket
from headrace.scheduling.ticket_heap import TicketHeap

SHARES: Mapping[str, float] = {"interactive": 8.0, "standard": 4.0, "batch": 1.0}
"""Of the classes that everybody knows; any other has the share of ``standard``."""

LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 1e6
SWEEP = 256
"""Accounts that are not worth a look whether some may be forgotten."""


class Account:
    """``counter``: service received, in weighted tokens divided by ``weight``. ``waiting``: its tickets in the queue;
    ``running``: those that are charged to it. ``listed``: it is in the line of its siblings."""

    __slots__ = ("counter", "listed", "running", "waiting", "weight")

    def __init__(self, weight: float) -> None:
        self.counter = 0.0
        self.weight = weight
        self.waiting = 0
        self.running = 0
        self.listed = False


A = TypeVar("A", bound=Account)


class Line(Generic[A]):
    """Sibling accounts with somebody waiting, the least counter first. Counters only grow, so an entry that is
    out of date is too low: it is put right when it comes to the top. ``floor``: the counter of who was
    served last, which is where a tenant begins that finds nobody waiting."""

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


class Tenant(Account):
    """A tenant in one class, with its waiting tickets."""

    __slots__ = ("level", "tickets")

    def __init__(self, weight: float, level: Level) -> None:
        super().__init__(weight)
        self.level = level
        self.tickets = TicketHeap()


class Level(Account):
    """A class: an account for all of its tenants, and the line of those. ``last``: it is served when no other has
    anybody waiting (share 0, or tenants of weight 0)."""

    __slots__ = ("last", "tenants")

    def __init__(self, share: float) -> None:
        super().__init__(share or 1.0)
        self.last = not share
        self.tenants: Line[Tenant] = Line()


class Accounts:
    """All accounts, by class and tenant. Those that would be lifted anyhow when they come back are forgotten."""

    __slots__ = ("_levels", "_shares", "_sweep_at", "_tenants", "last", "levels")

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._levels: dict[str, Level] = {}
        self._tenants: dict[tuple[str, str], Tenant] = {}
        self._sweep_at = SWEEP
        self.levels: Line[Level] = Line()
        self.last = Level(0.0)

    def of(self, ticket: Ticket) -> Tenant:
        """The account of a ticket, with its weight as its terms say now."""
        account: Tenant | None = ticket.account
        if account is not None:
            return account
        terms = ticket.terms
        weight = terms.weight
        name = terms.level if weight > 0 else ""
        account = self._tenants.get((name, terms.tenant))
        if account is None:
            account = self._open(name, terms.tenant)
        account.weight = min(max(weight, LEAST_WEIGHT), MOST_WEIGHT) if weight > 0 else 1.0
        return account

    def next_level(self) -> Level | None:
        """The class that is next; None if nobody waits."""
        level = self.levels.first()
        if level is None and self.last.waiting:
            return self.last
        return level

    def joins(self, tenant: Tenant) -> None:
        """One more of its tickets waits."""
        level = tenant.level
        self._lift(tenant)
        tenant.waiting += 1
        level.waiting += 1

    def leaves(self, tenant: Tenant) -> None:
        """One less of its tickets waits."""
        tenant.waiting -= 1
        tenant.level.waiting -= 1

    def served(self, tenant: Tenant) -> None:
        """One of its tickets is given out."""
        tenant.level.tenants.served(tenant)
        self.levels.served(tenant.level)

    def begins_at_once(self, tenant: Tenant) -> None:
        """One of its tickets runs without having waited."""
        self._lift(tenant)
        self.served(tenant)

    def charge(self, tenant: Tenant, cost: float) -> None:
        tenant.counter += cost / tenant.weight
        tenant.level.counter += cost / tenant.level.weight

    def _lift(self, tenant: Tenant) -> None:
        level = tenant.level
        if not level.waiting and not level.last:
            self.levels.join(level)
        if not tenant.waiting:
            level.tenants.join(tenant)

    def _open(self, name: str, tenant: str) -> Tenant:
        if len(self._tenants) >= self._sweep_at:
            self._sweep()
        level = self._level(name) if name else self.last
        account = self._tenants[name, tenant] = Tenant(1.0, level)
        return account

    def _level(self, name: str) -> Level:
        level = self._levels.get(name)
        if level is None:
            share = self._shares.get(name, self._shares.get("standard", 1.0))
            level = self._levels[name] = Level(share)
        return level

    def _sweep(self) -> None:
        """Forget who neither waits nor runs and has no more than the floor, where it would begin anew."""
        idle = [
            key
            for key, one in self._tenants.items()
            if not one.waiting and not one.running and one.counter <= one.level.tenants.floor
        ]
        for key in idle:
            del self._tenants[key]
        self._sweep_at = max(SWEEP, 2 * len(self._tenants))
