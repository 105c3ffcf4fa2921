"""What is known of each tenant and each class: service received, and who of them waits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from math import inf

from headrace.scheduling.crowded import Crowded
from headrace.scheduling.line import Account, Line
from headrace.scheduling.policy import Ticket
from headrace.scheduling.ticket_heap import TicketHeap
from headrace.scheduling.urgent import Urgent


class Tenant(Account):
    """A tenant in one class, and its waiting tickets: ``tickets`` in order, behind them the relegated ``late`` ones by
    when they are to be rescued; ``sheddable``: those of both that may be shed, the last first. ``owed``: how many
    late ones it has to run before others of its own. ``bid``, ``urgent_number`` and ``aside`` belong to
    :class:`Urgent`, ``crowd_number`` to :class:`Crowded`."""

    __slots__ = (
        *("aside", "bid", "crowd_number", "urgent_number"),
        *("late", "level", "owed", "sheddable", "tickets"),
    )

    def __init__(self, level: Level) -> None:
        super().__init__(1.0)
        self.level = level
        self.tickets = TicketHeap()
        self.late = TicketHeap()
        self.sheddable = TicketHeap()
        self.owed = 0.0
        self.bid = inf
        self.urgent_number = 0
        self.aside = False
        self.crowd_number = 0

    def relegate(self, now: float) -> None:
        """Put those at the top that had to start before ``now`` behind the others."""
        if self.bid >= now and not self.aside:  # the first has to start no sooner than its bid
            return
        while (entry := self.tickets.first()) is not None and entry[2].start_by < now:
            self.tickets.pop()
            entry[2].late = True
            self.late.push(entry[2].rescue_at, entry[2])

    @property
    def urgent(self) -> Urgent:
        """Where it belongs: who has late requests is apart."""
        return self.level.urgent_late if self.late.waiting else self.level.urgent

    def leaves_urgent(self) -> None:
        """Its entry there is not valid any more."""
        self.bid, self.urgent_number, self.aside = inf, 0, False

    def moves(self) -> None:
        """Its entry goes where it belongs now."""
        self.leaves_urgent()
        self.urgent.offer(self)

    def drop(self, ticket: Ticket) -> None:
        """A ticket of it has given up its stay."""
        (self.late if ticket.late else self.tickets).left()
        ticket.late = False
        if ticket.terms.sheddable and not ticket.begun:
            self.sheddable.left()

    def in_order(self) -> Iterator[Ticket]:
        """Its waiting tickets, those that are late behind the others."""
        return (entry[2] for entry in chain(self.tickets.in_order(), self.late.in_order()))


class Level(Account):
    """A class: an account for all of its tenants, the line of those, who of them is urgent (``urgent_late``: of those
    with late requests; ``lines``: both), who has most waiting.
    ``members``: tenants with an account. ``reach_s``: how long before its last moment one may be pressed, at most.
    ``last``: it is served when no other has anybody waiting."""

    __slots__ = (
        *("crowded", "last", "lines", "members", "reach_s"),
        *("tenants", "urgent", "urgent_late"),
    )

    def __init__(self, share: float) -> None:
        super().__init__(share or 1.0)
        self.last = not share
        self.members = 0
        self.reach_s = 0.0
        self.tenants: Line[Tenant] = Line()
        numbers = count(1)
        self.urgent = Urgent(numbers, late=False)
        self.urgent_late = Urgent(numbers, late=True)
        self.lines = self.urgent, self.urgent_late
        self.crowded = Crowded()
