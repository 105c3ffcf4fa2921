"""All accounts of a policy that shares: tenants in classes, which share among themselves in the same way.

A class with share 8 gets eight times the service of one with share 1 while both have requests waiting, and neither
ever waits for all of the other. Tenants of weight 0, and classes with share 0, are served when nobody else waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.scheduling.accounts import Level, Tenant
from headrace.scheduling.line import Line
from headrace.scheduling.policy import Ticket

SHARES: Mapping[str, float] = {"interactive": 8.0, "standard": 4.0, "batch": 1.0}
"""Of the classes that everybody knows; any other has the share of ``standard``."""

LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 1e6
SWEEP = 256
"""Accounts that are not worth a look whether some may be forgotten."""


class Ledger:
    """Those accounts are forgotten that would be lifted anyhow when they come back. ``levels``: the line of classes;
    ``last``: what is served when nobody there waits."""

    __slots__ = ("_levels", "_shares", "_sweep_at", "_tenants", "last", "levels")

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._levels: dict[str, Level] = {}
        self._tenants: dict[tuple[str, str], Tenant] = {}
        self._sweep_at = SWEEP
        self.levels: Line[Level] = Line()
        self.last = Level(0.0)

    def __len__(self) -> int:
        return len(self._tenants)

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
        if weight != account.weight:
            account.weight = min(max(weight, LEAST_WEIGHT), MOST_WEIGHT) if weight > 0 else 1.0
        return account

    def waiting_levels(self) -> list[Level]:
        """The classes with somebody waiting, in no order; also the last one."""
        levels = [one for one in self._levels.values() if one.waiting]
        if self.last.waiting:
            levels.append(self.last)
        return levels

    def next_level(self) -> Level | None:
        """The class that is next; None if nobody waits."""
        level = self.levels.first()
        if level is None and self.last.waiting:
            return self.last
        return level

    def levels_beside(self, following: Level) -> Iterable[Level]:
        """The classes that share with this one, itself too, in no order."""
        return (following,) if following.last else self._levels.values()

    def joins(self, tenant: Tenant, cost: float) -> None:
        """One more of its tickets waits."""
        level = tenant.level
        if not (tenant.waiting and level.waiting):
            self._lift(tenant)
        tenant.waiting += 1
        tenant.backlog += cost
        level.waiting += 1
        level.backlog += cost

    def leaves(self, tenant: Tenant, cost: float) -> None:
        """One less of its tickets waits."""
        level = tenant.level
        tenant.waiting = waiting = tenant.waiting - 1
        tenant.backlog = tenant.backlog - cost if waiting else 0.0
        level.waiting = waiting = level.waiting - 1
        level.backlog = level.backlog - cost if waiting else 0.0

    def served(self, tenant: Tenant) -> None:
        """One of its tickets is given out."""
        level = tenant.level
        if tenant.counter > level.tenants.floor:
            level.tenants.floor = tenant.counter
        if level.counter > self.levels.floor:
            self.levels.floor = level.counter

    def begins_at_once(self, tenant: Tenant) -> None:
        """One of its tickets runs without having waited."""
        self._lift(tenant)
        self.served(tenant)

    def charge(self, tenant: Tenant, cost: float) -> None:
        level = tenant.level
        tenant.counter += cost / tenant.weight
        level.counter += cost / level.weight

    def refund(self, tenant: Tenant, cost: float) -> None:
        """It was charged so much too much."""
        level = tenant.level
        level.tenants.refund(tenant, cost / tenant.weight)
        if not level.last:
            self.levels.refund(level, cost / level.weight)
        if tenant.bid.aside or tenant.late_bid.aside:
            tenant.moves()

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
        level.members += 1
        account = self._tenants[name, tenant] = Tenant(level)
        return account

    def _level(self, name: str) -> Level:
        level = self._levels.get(name)
        if level is None:
            share = self._shares.get(name, self._shares.get("standard", 1.0))
            if not share > 0:
                return self.last
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
            self._tenants.pop(key).level.members -= 1
        self._sweep_at = max(SWEEP, 2 * len(self._tenants))
