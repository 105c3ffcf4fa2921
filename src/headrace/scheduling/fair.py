"""Fair shares of service between tenants: VTC (Sheng et al., OSDI 2024), with priority classes above."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from headrace.scheduling.accounts import SHARES, Accounts, Tenant
from headrace.scheduling.ordered import Base
from headrace.scheduling.policy import Ticket, finite, tokens
from headrace.scheduling.ticket_heap import TicketHeap
from headrace.scheduling.turns import in_turn

OUTPUT_COST = 2.0
"""An output token in input tokens."""

PRIORITY_S = 10.0
"""A step of a request's own priority, in seconds of arrival: nobody waits for ever behind its own tenant."""

MOST_STEPS = 100


class Fair(Base):
    """The tenant that was served least is next, with its earliest request.

    ``shares``: of the priority classes. Of two tenants that both have requests waiting, neither gets more than
    2 · (the largest request) + what is in flight ahead of the other.
    """

    __slots__ = ("_accounts", "_output_cost", "_sheddable")
    name = "fair"

    def __init__(
        self, *, shares: Mapping[str, float] = SHARES, output_cost: float = OUTPUT_COST
    ) -> None:
        super().__init__()
        self._accounts = Accounts(shares)
        self._output_cost = output_cost
        self._sheddable = TicketHeap()

    def key(self, ticket: Ticket, now: float) -> float:
        """The order within a tenant: by arrival, moved by the request's own priority."""
        steps = min(max(ticket.priority, -MOST_STEPS), MOST_STEPS)
        return finite(ticket.arrived_at, finite(now)) + steps * PRIORITY_S

    def add(self, ticket: Ticket, now: float) -> None:
        if not self._join(ticket):
            return
        ticket.account = tenant = self._accounts.of(ticket)
        key = self.key(ticket, now)
        tenant.tickets.push(key, ticket)
        self._accounts.joins(tenant)
        if ticket.terms.sheddable:
            self._sheddable.push(-key, ticket)

    def remove(self, ticket: Ticket) -> bool:
        if not self._leave(ticket):
            return False
        tenant: Tenant = ticket.account
        tenant.tickets.left()
        self._accounts.leaves(tenant)
        if ticket.terms.sheddable:
            self._sheddable.left()
        ticket.account = None
        return True

    def peek(self, now: float) -> Ticket | None:
        level = self._accounts.next_level()
        tenant = None if level is None else level.tenants.first()
        entry = None if tenant is None else tenant.tickets.first()
        return None if entry is None else entry[2]

    def take(self, now: float) -> Ticket | None:
        ticket = self.peek(now)
        if ticket is None:
            return None
        tenant: Tenant = ticket.account
        self.remove(ticket)
        ticket.account = tenant
        self._accounts.served(tenant)
        return ticket

    def began(self, ticket: Ticket, now: float) -> None:
        if ticket.runs or ticket.stay:
            return
        ticket.runs = True
        tenant: Tenant | None = ticket.account
        if tenant is None:
            ticket.account = tenant = self._accounts.of(ticket)
            self._accounts.begins_at_once(tenant)
        tenant.running += 1
        if not ticket.charged:
            ticket.charged = True
            cost = tokens(ticket.prompt_tokens - tokens(ticket.cached_tokens))
            self._accounts.charge(tenant, cost)

    def produced(self, ticket: Ticket, count: int, now: float) -> None:
        more = tokens(count)
        ticket.produced += int(more)
        self._accounts.charge(self._accounts.of(ticket), more * self._output_cost)

    def ended(self, ticket: Ticket, now: float) -> None:
        if ticket.runs:
            ticket.runs = False
            ticket.account.running -= 1
            if not ticket.stay:
                ticket.account = None

    def ranked(self, now: float, limit: int) -> list[Ticket]:
        return list(islice(in_turn(self._accounts, self._output_cost), limit))

    def least_urgent(self, now: float, than: Ticket | None = None) -> Ticket | None:
        entry = self._sheddable.first()
        if entry is None or (than is not None and -entry[0] <= self.key(than, now)):
            return None
        return entry[2]
