"""Fair shares with headroom for deadlines: the default policy.

Strict fairness (VTC) gives the next place to who was served least, however much time its request has, while
another's is about to become late. Here a request goes ahead of its turn when it is *pressed* (a tenth of the time is
gone that its target gave it; the least slack = deadline − now − predicted prefill first) and its tenant is at most
``headroom`` weighted tokens beyond who was served least: about what is served in three seconds, which is 3,500 on the
GPU that was measured, 700 on two cores of a laptop and 25,000 on eight H100. So fairness holds up to the headroom.

Under overload something is late. Earliest deadlines first would then run everything just too late; so a request that
cannot make its deadline any more is relegated behind its tenant's others. It is not lost: it runs when its tenant has
no other and it is its turn, and once it has waited ``rescue_after`` times its target, its tenant runs
``rescue_rate`` such requests for each one in time. The tenant pays for that itself. Who has more than a few late ones
(``accounts.FEW``) asks for more than there is: it goes ahead of its turn after all others, and only where who is next
does so too, or who causes an overload would have the time that the others' bursts need. A late request of who has a
few only comes between: after all that are pressed, and before those of who overloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from headrace.scheduling.accounts import FEW, Level, Tenant
from headrace.scheduling.fair import OUTPUT_COST, Fair
from headrace.scheduling.ledger import SHARES
from headrace.scheduling.ordered import recomputed
from headrace.scheduling.policy import (
    MOST_S,
    MOST_STEPS,
    MOST_TOKENS,
    PRIORITY_S,
    Ticket,
    finite,
    make_sane,
    steps,
)
from headrace.scheduling.predictor import Predictors
from headrace.scheduling.promises import (
    LONGEST_S,
    TARGETS_S,
    at_least,
    due_at,
    each_at_least,
)
from headrace.scheduling.rate import Rate
from headrace.scheduling.ticket_heap import TicketHeap

HEADROOM = 3000.0
"""Weighted tokens, until it is known how fast is served."""
HEADROOM_S = 3.0
LEAST_HEADROOM, MOST_HEADROOM = 256.0, 1e6
PRESSED = 0.9
RESCUE_AFTER = 12.0
RESCUE_RATE = 3.0
ROUNDING_S = 1e-3
BEFORE_S = LONGEST_S + PRIORITY_S * MOST_STEPS
"""An answer that has begun goes on before its tenant's others."""


class FairHeadroom(Fair):
    """Of two tenants with requests waiting, neither gets more than 2 · max(the largest request, ``headroom``)
    + what is in flight ahead of the other.

    ``headroom``: weighted tokens; None is what is served in ``headroom_s``, at the speed of late. ``targets_s``: by
    class, for requests without a deadline. ``pressed``: the part of its target that is left when a
    request is pressed; 1 is always, 0 not before it is late.
    """

    # What every request comes through names ``Fair``: ``super()`` makes an object and looks the method up, each time.

    __slots__ = (
        *("_adapts", "_expiring", "_headroom_s", "_predictors", "_pressed_part"),
        *("_rate", "_rescue_after", "_rescue_rate", "_targets_s", "headroom"),
    )
    name = "fair-headroom"

    def __init__(
        self,
        *,
        shares: Mapping[str, float] = SHARES,
        output_cost: float = OUTPUT_COST,
        headroom: float | None = None,
        headroom_s: float = HEADROOM_S,
        targets_s: Mapping[str, float] = TARGETS_S,
        pressed: float = PRESSED,
        rescue_after: float = RESCUE_AFTER,
        rescue_rate: float = RESCUE_RATE,
    ) -> None:
        super().__init__(shares=shares, output_cost=output_cost)
        self._adapts = headroom is None
        self.headroom = HEADROOM if headroom is None else at_least("headroom", headroom, 0)
        """In weighted tokens, as it is now."""
        self._headroom_s = at_least("headroom_s", headroom_s, 0)
        self._rate = Rate()
        self._targets_s = each_at_least("targets_s", targets_s, 0)
        self._pressed_part = at_least("pressed", pressed, 0)
        self._rescue_after = at_least("rescue_after", rescue_after, 1)
        self._rescue_rate = at_least("rescue_rate", rescue_rate, 0.01)
        self._expiring = TicketHeap()
        self._predictors = Predictors()

    def produced(self, ticket: Ticket, count: int, now: float) -> None:
        Fair.produced(self, ticket, count, now)
        more = count if 0 < count < MOST_TOKENS else 0
        if self._rate.served(self._output_cost * more, now) and self._adapts:
            headroom = self._headroom_s * self._rate.per_s
            self.headroom = min(max(headroom, LEAST_HEADROOM), MOST_HEADROOM)

    def _queue(self, tenant: Tenant, ticket: Ticket, now: float) -> float:
        self._promise(ticket, now)
        start_by = ticket.start_by
        key = ticket.arrived_at - BEFORE_S if ticket.begun else start_by
        if ticket.priority:
            key += steps(ticket.priority)
        tenant.tickets.push(key, ticket)
        level = tenant.level
        reach_s = start_by - ticket.pressed_at + ROUNDING_S
        if reach_s > level.reach_s or level.waiting == 1:
            level.reach_s = reach_s
        if start_by < tenant.bid.at:
            tenant.urgent.offer(tenant.bid)
        if ticket.terms.sheddable and not ticket.charged and start_by >= ticket.arrived_at:
            self._expiring.push(start_by, ticket)
        return key

    def _promise(self, ticket: Ticket, now: float) -> None:
        """When it must start, and from when on it is pressed and to be rescued."""
        arrived = ticket.arrived_at
        due = due_at(ticket, arrived, self._targets_s)
        target_s = due - arrived
        if target_s < 0:
            target_s = 0.0
        rescue_at = arrived + self._rescue_after * target_s
        if ticket.begun:  # its client waits anew, in the middle of an answer
            due, rescue_at = finite(now) + target_s, arrived
        ticket.start_by = due - self._predictors.prefill_s(ticket.size)
        ticket.pressed_at = ticket.start_by - self._pressed_part * target_s
        ticket.rescue_at = rescue_at

    def _dequeue(self, tenant: Tenant, ticket: Ticket) -> None:
        late = ticket.late
        Fair._dequeue(self, tenant, ticket)
        if not late:
            tenant.urgent.offer(tenant.bid)
        elif tenant.late.waiting == FEW:
            tenant.moves()
        elif not tenant.overloads:
            tenant.level.late.offer(tenant.late_bid)
        if ticket.terms.sheddable:
            self._expiring.left()

    def peek(self, now: float) -> Ticket | None:
        at = now if -MOST_S < now < MOST_S else 0.0
        late = at + self._predictors.ahead_s
        level = self._ledger.next_level()
        if level is None:
            return None
        ahead = self._ahead_of_turn(level, late)
        if ahead is not None and (ahead.late or ahead.account.owed < 1):
            return ahead
        tenant: Tenant | None = level.tenants.first() if ahead is None else ahead.account
        if tenant is None:
            return None
        if tenant.bid.at < late or tenant.bid.aside:
            tenant.relegate(late)
        entry = tenant.tickets.first()
        if entry is None or (tenant.owed >= 1 and self._overdue(tenant, at)):
            entry = tenant.late.first()
        return None if entry is None else entry[2]

    def _ahead_of_turn(self, following: Level, late: float) -> Ticket | None:
        """Who of all within the headroom goes ahead of its turn: of those that are pressed the one with the least
        slack; a late one of who has few of them; one that is pressed of who overloads, if who is next does as well.
        ``following``: the class that is next."""
        headroom, best_rank, soonest = self.headroom, len(following.lines), inf
        bound = following.counter + headroom
        best: Ticket | None = None
        for level in self._ledger.levels_beside(following):
            if level.counter > bound or not level.waiting:
                continue
            least: Tenant | None = None
            pressed_before = late + level.reach_s
            for rank, line in enumerate(level.lines):
                before = pressed_before
                if line.soonest >= before:
                    continue
                if rank >= best_rank:
                    if rank > best_rank:
                        break
                    if soonest < before:
                        before = soonest
                        if line.soonest >= before:
                            continue
                if least is None:
                    least = level.tenants.first()
                    if least is None:
                        break
                    if least.bid.at < late or least.bid.aside:
                        least.relegate(late)
                if line is level.overloading and not least.overloads:
                    break
                ticket = line.first(late, least.counter, headroom, before)
                if ticket is not None and ticket.pressed_at <= late:
                    best, best_rank, soonest = ticket, rank, ticket.start_by
                    break
        return best

    @staticmethod
    def _overdue(tenant: Tenant, now: float) -> bool:
        """It has a late request that has waited too long."""
        entry = tenant.late.first()
        return entry is not None and entry[0] < now

    def serve(self, ticket: Ticket, now: float) -> bool:
        if not ticket.stay:
            return False
        tenant: Tenant = ticket.account
        if ticket.late:
            if tenant.owed:
                tenant.owed = max(tenant.owed - 1, 0.0)
        elif tenant.late.waiting and self._overdue(tenant, finite(now)):
            tenant.owed = min(tenant.owed + self._rescue_rate, self._rescue_rate + 1)
        return Fair.serve(self, ticket, now)

    def began(self, ticket: Ticket, now: float) -> None:
        if ticket.runs or ticket.stay:
            return
        if ticket.start_by == inf:  # it never waited
            make_sane(ticket, now)
            self._promise(ticket, now)
        self._predictors.began(ticket, now)
        if not ticket.charged:
            self._rate.began += ticket.size
        Fair.began(self, ticket, now)

    def first_token(self, ticket: Ticket, now: float) -> None:
        self._predictors.first_token(ticket, now)

    def ended(self, ticket: Ticket, now: float) -> None:
        if ticket.prefilling:
            self._predictors.ended(ticket)
        Fair.ended(self, ticket, now)

    def expired(self, now: float) -> list[Ticket]:
        late = finite(now, -MOST_S) + self._predictors.ahead_s
        gone = []
        while (entry := self._expiring.first()) is not None and entry[0] < late:
            self.remove(entry[2])
            gone.append(entry[2])
        return gone

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        """As under ``fair``, or one of a tenant of the same class that has more than its share of the slots; and
        only for one that is pressed, and has some time left. Who is served when nobody else waits gives way at once."""
        at = finite(now) + self._predictors.ahead_s
        candidates = list(running)
        if not ticket.pressed_at <= at <= ticket.start_by:
            candidates = [one for one in candidates if one.runs and one.account.level.last]
            return super().victim(ticket, candidates, now)
        victim = super().victim(ticket, candidates, now) or self._of_most(ticket, candidates)
        if victim is None or victim.account.level.last:
            return victim
        return victim if self._rate.spend(recomputed(victim), self.headroom, now) else None

    def hurries(self, ticket: Ticket, running: Iterable[Ticket], now: float, replica: str) -> bool:
        if ticket.start_by == inf:  # it never waited
            make_sane(ticket, now)
            self._promise(ticket, now)
        tenant = self._ledger.of(ticket)
        if tenant.waiting and not (ticket.stay or ticket.runs):  # others of it come first
            return False
        at = finite(now)
        sooner_s = self._predictors.sooner_s(ticket.size, replica, at)
        if (
            not ticket.pressed_at <= at + self._predictors.ahead_s
            or at > ticket.start_by + sooner_s
        ):
            return False
        candidates = list(running)
        if super().victim(ticket, candidates, now) is not None:
            return True
        of_most = self._of_most(ticket, candidates)
        return of_most is not None and tenant.counter <= of_most.account.counter + self.headroom

    def _of_most(self, ticket: Ticket, running: Iterable[Ticket]) -> Ticket | None:
        """One of who has most slots by its weight, and more than the other will have."""
        tenant = self._ledger.of(ticket)
        least = (tenant.running + (not ticket.runs)) / tenant.weight
        slots: dict[Ticket, float] = {}
        for one in running:
            if one.runs and one.account.level is tenant.level and one.account is not tenant:
                share = (one.account.running - 1) / one.account.weight
                if share >= least:
                    slots[one] = share
        most = max(slots.values(), default=0.0)
        of_most = (one for one, share in slots.items() if share == most)
        return min(of_most, key=lambda one: (one.pauses, recomputed(one)), default=None)
