"""A formula of how near each tenant is to missing its target; here to be compared with."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from heapq import heapify, heappop, heappush
from itertools import islice

from headrace.scheduling.ordered import Base
from headrace.scheduling.policy import Ticket, steps
from headrace.scheduling.promises import TARGETS_S, arrival, at_least, due_at, listed
from headrace.scheduling.ticket_heap import SLACK, TicketHeap, in_order

WINDOW = 100
"""First tokens of a tenant that its p99 is taken from."""

LEAST_S = 1e-3
TENANTS = 4096
"""Known at once; beyond, those with nobody waiting are forgotten."""


def urgency(
    p99_s: float, target_s: float, load: float, weights: tuple[float, float, float]
) -> float:
    """Weights ``(0.4, 0.5, 0.1)``: 0.4 · h⁻² + 0.5 / p99 + 0.1 · c, with h = max(0.1, (T − p99) / T), and c = 1 below
    load 0.8, else 1.8 − load."""
    p99_s, target_s = max(p99_s, LEAST_S), max(target_s, LEAST_S)
    h = max(0.1, (target_s - p99_s) / target_s)
    c = 1.0 if load < 0.8 else 1.8 - load
    return weights[0] * h**-2 + weights[1] / p99_s + weights[2] * c


class _Tenant:
    """``recent``: its last first tokens' latencies, ``ordered``: the same by size."""

    __slots__ = ("number", "ordered", "recent", "target_s", "tickets")

    def __init__(self) -> None:
        self.target_s = 0.0
        self.recent: deque[float] = deque()
        self.ordered: list[float] = []
        self.tickets = TicketHeap()
        self.number = 0

    @property
    def p99_s(self) -> float:
        """Its target until it was measured."""
        ordered = self.ordered
        return ordered[int(0.99 * (len(ordered) - 1) + 0.5)] if ordered else self.target_s

    def measured(self, latency_s: float) -> None:
        self.recent.append(latency_s)
        insort(self.ordered, latency_s)
        if len(self.recent) > WINDOW:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]


class SloFormula(Base):
    """The tenant with the greatest :func:`urgency` is next, with its earliest request.

    Warning: harmful as it stands, and meant for comparison. Every tenant that misses its target ties at the clamp
    of h, so that the second and third term never decide; the tenant that causes an overload misses its target by
    most and gets the top place; the p99 of a tenant that is starved has no new values and freezes, so that it may
    wait for as long as others have requests. ``python -m benchmarks.scheduling a10g`` shows it.

    ``weights``: of the three terms. ``load``: the part of the slots that is busy, told by who knows it; it is the
    same for all, so it never changes who is next.
    """

    __slots__ = ("_entries", "_number", "_sheddable", "_tenants", "_weights", "load")
    name = "slo-formula"

    def __init__(self, *, weights: tuple[float, float, float] = (0.4, 0.5, 0.1)) -> None:
        super().__init__()
        if len(listed("weights", weights)) != 3:
            raise ValueError("weights: must be three numbers")
        first, second, third = (
            at_least(f"weights[{at}]", weight, 0) for at, weight in enumerate(weights)
        )
        self._weights = first, second, third
        self.load = 0.0
        self._tenants: dict[str, _Tenant] = {}
        self._entries: list[tuple[float, int, _Tenant]] = []
        self._sheddable = TicketHeap()
        self._number = 0

    def add(self, ticket: Ticket, now: float) -> None:
        if not self._join(ticket, now):
            return
        ticket.account = tenant = self._of(ticket)
        arrived = ticket.arrived_at
        tenant.target_s = due_at(ticket, arrived, TARGETS_S) - arrived
        tenant.tickets.push(arrived + steps(ticket.priority), ticket)
        if ticket.terms.sheddable and not ticket.begun:
            self._sheddable.push(-arrived, ticket)
        if tenant.tickets.waiting == 1:
            self._rank(tenant)

    def remove(self, ticket: Ticket) -> bool:
        if not self._leave(ticket):
            return False
        ticket.account.tickets.left()
        ticket.account = None
        if ticket.terms.sheddable and not ticket.begun:
            self._sheddable.left()
        return True

    def peek(self, now: float) -> Ticket | None:
        entries = self._entries
        while entries:
            _, number, tenant = entries[0]
            entry = tenant.tickets.first() if number == tenant.number else None
            if entry is not None:
                return entry[2]
            heappop(entries)
        return None

    def first_token(self, ticket: Ticket, now: float) -> None:
        latency_s = now - ticket.arrived_at
        tenant = self._tenants.get(ticket.terms.tenant)
        if tenant is not None and 0 <= latency_s < 1e9:
            tenant.measured(latency_s)
            if tenant.tickets.waiting:
                self._rank(tenant)

    def least_urgent(self, now: float, than: Ticket | None = None) -> Ticket | None:
        """The one that came last, of those that may be shed."""
        entry = self._sheddable.first()
        if entry is None or (than is not None and -entry[0] <= arrival(than, now)):
            return None
        return entry[2]

    def ranked(self, now: float, limit: int) -> list[Ticket]:
        tenants = (one[2] for one in in_order(self._entries) if one[1] == one[2].number)
        return list(islice((e[2] for one in tenants for e in one.tickets.in_order()), limit))

    def _of(self, ticket: Ticket) -> _Tenant:
        name = ticket.terms.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            if len(self._tenants) >= TENANTS:
                self._tenants = {k: v for k, v in self._tenants.items() if v.tickets.waiting}
            tenant = self._tenants[name] = _Tenant()
        return tenant

    def _rank(self, tenant: _Tenant) -> None:
        """Its place among the tenants has changed."""
        self._number += 1
        tenant.number = self._number
        rank = -urgency(tenant.p99_s, tenant.target_s, self.load, self._weights)
        heappush(self._entries, (rank, self._number, tenant))
        if len(self._entries) > 2 * len(self._tenants) + SLACK:
            self._entries = [one for one in self._entries if one[1] == one[2].number]
            heapify(self._entries)
