"""The bounded queue of one model: who waits, since when, and what happens when it is full.

A plain synchronous decider: time comes in as an argument, who is next is a :class:`Policy`'s decision.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from heapq import heapify, heappush
from math import inf
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.scheduling.policy import MOST_S, Policy, Ticket, finite
from headrace.scheduling.starts import Starts
from headrace.scheduling.ticket_heap import SLACK, in_order

RETRY_S = 1.0
"""Shortest time after which a refused request may be worth sending again."""
LATER_S = 5.0
"""The same for one that was let in, while it is not known how fast others start."""


class Overflow(StrEnum):
    """What becomes of a request that finds the queue full."""

    REJECT = "reject"
    """It is refused."""
    WAIT = "wait"
    """It waits outside, in order of arrival, for room; as many may as fit inside."""
    SHED = "shed"
    """The least urgent waiting one that is sheddable and less urgent gives way to it; without one it is refused."""
    SPILL = "spill"
    """Its caller has looked for room at another model before; where there was none it is refused."""


class Waiting(Protocol):
    """What can stand in a queue: anything with an id."""

    @property
    def id(self) -> str: ...


W = TypeVar("W", bound=Waiting)


class Wait(msgspec.Struct, Generic[W], eq=False, gc=False):
    """One who waits. ``since`` counts for the time limit. ``again``: it joined behind others that came later; such a
    one may be ``gone``."""

    item: W
    ticket: Ticket
    since: float
    again: bool = False
    gone: bool = False


_since = attrgetter("since")


class Queue(Generic[W]):
    """At most ``limit`` wait (and as many outside); each at most ``timeout_s`` seconds. ``waiting``: who does, by
    id, in the order they joined; others may only look at it."""

    __slots__ = (
        "_again",
        "_newest",
        "_number",
        "_outside",
        "_starts",
        "limit",
        "policy",
        "timeout_s",
        "waiting",
    )

    def __init__(self, policy: Policy, limit: int, timeout_s: float) -> None:
        self.policy = policy
        self.limit = limit
        self.timeout_s = timeout_s
        self.waiting: dict[str, Wait[W]] = {}
        self._outside: OrderedDict[str, Wait[W]] = OrderedDict()
        self._newest = -inf
        # By since when: `waiting` has all others in that order.
        self._again: list[tuple[float, int, Wait[W]]] = []
        self._number = 0
        self._starts = Starts()

    def __len__(self) -> int:
        return len(self.waiting)

    def push(
        self, item: W, ticket: Ticket, now: float, overflow: Overflow = Overflow.REJECT
    ) -> tuple[int, W | None]:
        """Join. Returns its position from 1, before which nobody is who comes later, but for the policy, and who was
        shed for it. Raises ``QUEUE_FULL`` with ``Retry-After``."""
        gave_way: W | None = None
        waiting = self.waiting
        if item.id in waiting:
            return len(waiting), None
        inside = len(waiting) - len(self._outside)
        if inside >= self.limit:
            if overflow is Overflow.WAIT and len(self._outside) < self.limit:
                self._outside[item.id] = self._wait(item, ticket, now)
                return len(waiting), None
            if overflow is Overflow.SHED:
                gave_way = self._shed(ticket, now)
            if gave_way is None:
                raise self._full(now)
            inside -= 1
        self._wait(item, ticket, now)
        self.policy.add(ticket, now)
        return inside + 1, gave_way

    def rejoin(self, item: W, ticket: Ticket, since: float, now: float) -> None:
        """Wait again: it was pre-empted, or its run broke. Never refused: it was admitted already. ``since`` counts for
        its time limit."""
        if item.id not in self.waiting:
            self._wait(item, ticket, since)
            self.policy.add(ticket, now)

    def first(self, now: float) -> W | None:
        """Who is next; None if nobody waits."""
        ticket = self.policy.peek(now)
        return None if ticket is None else self.waiting[ticket.id].item

    def serve(self, item: W, now: float) -> Wait[W] | None:
        """Take the one that was :meth:`first`; None if it does not wait any more."""
        waiting = self.waiting
        wait = waiting.get(item.id)
        if wait is None or not self.policy.serve(wait.ticket, now):
            return None
        del waiting[item.id]
        if wait.again:
            wait.gone = True
        self._starts.started(now, len(waiting))
        if self._outside:
            self._let_in()
        return wait

    def remove(self, item: W) -> bool:
        """Leave the queue; whether it was in there."""
        wait = self.waiting.get(item.id)
        if wait is None:
            return False
        self._forget(item.id)
        if self._outside.pop(item.id, None) is None:
            self.policy.remove(wait.ticket)
            self._let_in()
        return True

    def expired(self, now: float) -> list[W]:
        """Those that agreed to be refused when they cannot be in time any more: they were removed."""
        gone = [self._forget(ticket.id).item for ticket in self.policy.expired(now)]
        if gone:
            self._let_in()
        return gone

    def overdue(self, now: float) -> list[W]:
        """All that have waited longer than the limit; they stay."""
        late: list[Wait[W]] = []
        for wait in self.waiting.values():
            if not wait.again:
                if not now - wait.since > self.timeout_s:
                    break
                late.append(wait)
        for since, _, wait in in_order(self._again):
            if not now - since > self.timeout_s:
                break
            if not wait.gone:
                late.append(wait)
        return [wait.item for wait in sorted(late, key=_since)]

    def items(self) -> list[W]:
        """All who wait, in the order they joined."""
        return [wait.item for wait in self.waiting.values()]

    def ranked(self, now: float, limit: int) -> list[W]:
        """The first ``limit`` in the order in which they would run, were nothing to change."""
        return [self.waiting[ticket.id].item for ticket in self.policy.ranked(now, limit)]

    def eta_s(self, position: int, now: float) -> float | None:
        """How long the one at this position will wait, from how fast others started of late; None: unknown."""
        return self._starts.wait_s(position, now)

    def room_s(self, now: float, unknown_s: float = RETRY_S) -> float:
        """After how long one that found it full may try again: the next will have started."""
        return self._retry_s(1, now, unknown_s)

    def quiet_s(self, now: float, leaving: int = 0) -> float:
        """After how long one that waited in vain may try again: all that wait now will have started, but for so many
        that are leaving."""
        return self._retry_s(max(len(self.waiting) - leaving, 1), now, LATER_S)

    def _retry_s(self, position: int, now: float, unknown_s: float) -> float:
        """Until the one at this position starts; whoever waits now has left when the time limit is over."""
        eta_s = self.eta_s(position, now)
        return unknown_s if eta_s is None else max(min(eta_s, self.timeout_s), RETRY_S)

    def _wait(self, item: W, ticket: Ticket, since: float) -> Wait[W]:
        if not -MOST_S < since < MOST_S:
            since = finite(since)
        waiting = self.waiting
        wait = Wait(item, ticket, since)
        if since >= self._newest or not waiting:
            self._newest = since
        else:
            self._joined_again(wait)
        waiting[item.id] = wait
        return wait

    def _joined_again(self, wait: Wait[W]) -> None:
        wait.again = True
        again = self._again
        self._number += 1
        heappush(again, (wait.since, self._number, wait))
        if len(again) > 2 * len(self.waiting) + SLACK:
            again[:] = [entry for entry in again if not entry[2].gone]
            heapify(again)

    def _forget(self, key: str) -> Wait[W]:
        wait = self.waiting.pop(key)
        if wait.again:
            wait.gone = True
        return wait

    def _let_in(self) -> None:
        while self._outside and len(self.policy) < self.limit:
            _, wait = self._outside.popitem(last=False)
            self.policy.add(wait.ticket, wait.since)

    def _shed(self, ticket: Ticket, now: float) -> W | None:
        least = self.policy.least_urgent(now, ticket)
        if least is None:
            return None
        self.policy.remove(least)
        return self._forget(least.id).item

    def _full(self, now: float) -> HeadraceError:
        return HeadraceError(
            Code.QUEUE_FULL,
            f"{self.limit} requests are waiting for this model already; try again shortly.",
            retry_after_s=self.room_s(now),
        )
