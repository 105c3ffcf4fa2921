"""Fair shares of service between tenants: VTC (Sheng et al., OSDI 2024), with priority classes above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from headrace.scheduling.accounts import Level, Tenant
from headrace.scheduling.ledger import SHARES, Ledger
from headrace.scheduling.ordered import Base, recomputed
from headrace.scheduling.policy import MOST_TOKENS, Ticket, make_sane, steps, tokens
from headrace.scheduling.promises import at_least, each_at_least
from headrace.scheduling.turns import in_turn

OUTPUT_COST = 2.0
"""An output token in input tokens."""


class Fair(Base):
    """The tenant that was served least is next, with its earliest request.

    ``shares``: of the priority classes. Of two tenants with requests waiting, neither gets more than
    2 · (the largest request) + what is in flight ahead of the other.
    """

    __slots__ = ("_ledger", "_output_cost")
    name = "fair"

    def __init__(
        self, *, shares: Mapping[str, float] = SHARES, output_cost: float = OUTPUT_COST
    ) -> None:
        super().__init__()
        self._ledger = Ledger(each_at_least("shares", shares, 0))
        self._output_cost = at_least("output_cost", output_cost, 0)

    def add(self, ticket: Ticket, now: float) -> None:
        if not self._join(ticket, now):
            return
        ticket.account = tenant = self._ledger.of(ticket)
        left = ticket.output_tokens - ticket.produced
        cost = self._output_cost * left if left > 0 else 0.0
        if not ticket.charged:
            cost += ticket.size
        ticket.cost = cost
        self._ledger.joins(tenant, cost)
        key = self._queue(tenant, ticket, now)
        if ticket.terms.sheddable and not ticket.begun:
            tenant.sheddable.push(-key, ticket)
            tenant.level.crowded.joined(tenant)

    def _queue(self, tenant: Tenant, ticket: Ticket, now: float) -> float:
        """Into the tenant's own order; returns the key."""
        key = ticket.arrived_at + steps(ticket.priority)
        tenant.tickets.push(key, ticket)
        return key

    def remove(self, ticket: Ticket) -> bool:
        if not self._leave(ticket):
            return False
        self._dequeue(ticket.account, ticket)
        ticket.account = None
        return True

    def _dequeue(self, tenant: Tenant, ticket: Ticket) -> None:
        tenant.drop(ticket)
        self._ledger.leaves(tenant, ticket.cost)

    def peek(self, now: float) -> Ticket | None:
        level = self._ledger.next_level()
        tenant = None if level is None else level.tenants.first()
        entry = None if tenant is None else tenant.tickets.first()
        return None if entry is None else entry[2]

    def serve(self, ticket: Ticket, now: float) -> bool:
        if not self._leave(ticket):
            return False
        tenant: Tenant = ticket.account
        self._dequeue(tenant, ticket)
        self._ledger.served(tenant)
        return True

    def began(self, ticket: Ticket, now: float) -> None:
        if ticket.runs or ticket.stay:
            return
        ticket.runs = True
        tenant: Tenant | None = ticket.account
        if tenant is None:
            make_sane(ticket, now)
            ticket.account = tenant = self._ledger.of(ticket)
            self._ledger.begins_at_once(tenant)
        tenant.running += 1
        if ticket.charged:
            ticket.again = True
        else:
            ticket.charged = True
            self._ledger.charge(tenant, ticket.size)

    def produced(self, ticket: Ticket, count: int, now: float) -> None:
        more = count if 0 < count < MOST_TOKENS else 0
        ticket.produced += more
        tenant: Tenant = ticket.account or self._ledger.of(ticket)
        self._ledger.charge(tenant, more * self._output_cost)

    def settled(self, ticket: Ticket, prompt_tokens: int, cached_tokens: int) -> None:
        if not ticket.charged or ticket.again or not tokens(prompt_tokens):
            return
        charged = ticket.size
        ticket.prompt_tokens, ticket.cached_tokens = prompt_tokens, cached_tokens
        make_sane(ticket, ticket.arrived_at)
        more = ticket.size - charged
        tenant = self._ledger.of(ticket)
        if more < 0:
            self._ledger.refund(tenant, -more)
        else:
            self._ledger.charge(tenant, more)

    def ended(self, ticket: Ticket, now: float) -> None:
        if ticket.runs:
            ticket.runs = False
            ticket.account.running -= 1
            ticket.account = None

    def refused(self, ticket: Ticket) -> None:
        if ticket.charged and not ticket.again:
            ticket.charged = False
            self._ledger.refund(self._ledger.of(ticket), ticket.size)

    def waiting(self, ticket: Ticket) -> int:
        return self._ledger.of(ticket).waiting

    def least_urgent(self, now: float, than: Ticket | None = None) -> Ticket | None:
        """Of the class, and in it the tenant, whose requests would be the last to run: the last of these."""
        levels = [one for one in self._ledger.waiting_levels() if one.crowded.first() is not None]
        if not levels:
            return None
        level = max(levels, key=lambda one: (one.last, one.horizon))
        tenant = level.crowded.first()
        entry = None if tenant is None else tenant.sheddable.first()
        if tenant is None or entry is None:
            return None
        if than is not None and not self._gives_way(tenant, entry[2], than):
            return None
        return entry[2]

    def _gives_way(self, tenant: Tenant, ticket: Ticket, than: Ticket) -> bool:
        other = self._ledger.of(than)
        if other is tenant:
            return steps(ticket.priority) > steps(than.priority)
        if other.level is not tenant.level:
            mine, others = tenant.level, other.level
            return (mine.last, mine.horizon) > (others.last, others.horizon)
        return tenant.horizon > other.horizon

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        """The one that loses least by being computed again, of classes that had more than their share."""
        level = self._ledger.of(ticket).level
        candidates = [one for one in running if one.runs and self._ahead(one.account.level, level)]
        return min(candidates, key=lambda one: (one.pauses, recomputed(one)), default=None)

    @staticmethod
    def _ahead(level: Level, of: Level) -> bool:
        """The class has a smaller share, and has had more of it."""
        if level.last or of.last:
            return level.last and not of.last
        return level.weight < of.weight and level.counter > of.counter

    def ranked(self, now: float, limit: int) -> list[Ticket]:
        return list(islice(in_turn(self._ledger, self._output_cost), limit))
