"""What is known of each tenant and each class: service received, and who of them waits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

from headrace.scheduling.crowded import Crowded
from headrace.scheduling.line import Account, Line
from headrace.scheduling.policy import Ticket
from headrace.scheduling.ticket_heap import TicketHeap
from headrace.scheduling.urgent import Bid, Urgent

FEW = 4
"""Who has no more late ones than that is not who causes an overload."""


class Tenant(Account):
    """A tenant in one class, and its waiting tickets: ``tickets`` in order, behind them the relegated ``late`` ones by
    when they are to be rescued; ``sheddable``: those of both that may be shed, the last first. ``owed``: how many
    late ones it has to run before others of its own. ``bid``: of its tickets that can be in time, to go ahead of its
    turn; ``late_bid``: of the others, while they are few. ``overloads``: it asks for more than it can have in time;
    ``urgent``: where its bid belongs, as who does is apart. ``crowd_number`` belongs to :class:`Crowded`."""

    __slots__ = (
        *("bid", "crowd_number", "late", "late_bid", "level"),
        *("overloads", "owed", "sheddable", "tickets", "urgent"),
    )

    def __init__(self, level: Level) -> None:
        super().__init__(1.0)
        self.level = level
        self.tickets = TicketHeap()
        self.late = TicketHeap()
        self.sheddable = TicketHeap()
        self.owed = 0.0
        self.overloads = False
        self.urgent = level.urgent
        self.bid = Bid(self, self.tickets)
        self.late_bid = Bid(self, self.late)
        self.crowd_number = 0

    def relegate(self, now: float) -> None:
        """Put those at the top that had to start before ``now`` behind the others."""
        bid, late = self.bid, self.late
        if bid.at >= now and not bid.aside:  # the first has to start no sooner than its bid
            return
        before = late.waiting
        while (entry := self.tickets.first()) is not None and entry[2].start_by < now:
            self.tickets.pop()
            entry[2].late = True
            late.push(entry[2].rescue_at, entry[2])
        if late.waiting > before:
            if before <= FEW < late.waiting:
                self.moves()
            elif late.waiting <= FEW:
                self.level.late.offer(self.late_bid)

    def moves(self) -> None:
        """Its bids go where they belong now. To be called when its late ones become more than few, or few again."""
        self.overloads = self.late.waiting > FEW
        self.urgent = self.level.overloading if self.overloads else self.level.urgent
        self.bid.leave()
        self.late_bid.leave()
        self.urgent.offer(self.bid)
        if not self.overloads:
            self.level.late.offer(self.late_bid)

    def drop(self, ticket: Ticket) -> None:
        """A ticket of it has given up its stay."""
        if ticket.late:
            ticket.late = False
            self.late.left()
        else:
            self.tickets.left()
        if ticket.terms.sheddable and not ticket.begun:
            self.sheddable.left()

    def in_order(self) -> Iterator[Ticket]:
        """Its waiting tickets, those that are late behind the others."""
        return (entry[2] for entry in chain(self.tickets.in_order(), self.late.in_order()))


class Level(Account):
    """A class: an account for all of its tenants, the line of those, who of them may go ahead of it (``lines``: those
    who are ``urgent``, those with a few ``late`` ones, and those ``overloading`` it who are urgent), who has most
    waiting.
    ``members``: tenants with an account. ``reach_s``: how long before its last moment one may be pressed, at most.
    ``last``: it is served when no other has anybody waiting."""

    __slots__ = (
        *("crowded", "last", "late", "lines", "members"),
        *("overloading", "reach_s", "tenants", "urgent"),
    )

    def __init__(self, share: float) -> None:
        super().__init__(share or 1.0)
        self.last = not share
        self.members = 0
        self.reach_s = 0.0
        self.tenants: Line[Tenant] = Line()
        numbers = count(1)
        self.urgent, self.late, self.overloading = (Urgent(numbers) for _ in range(3))
        self.lines = self.urgent, self.late, self.overloading
        self.crowded = Crowded()
