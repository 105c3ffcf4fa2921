"""Of the tenants that may go ahead of their turn, whose request has the least time left."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import TYPE_CHECKING

from headrace.scheduling.ticket_heap import SLACK, TicketHeap

if TYPE_CHECKING:
    from headrace.scheduling.accounts import Tenant
    from headrace.scheduling.policy import Ticket


class Bid:
    """What a tenant offers of its ``tickets``: the first must start no sooner than ``at``. ``number``: of its valid
    entry; 0: it has none. ``aside``: that is with those beyond the headroom."""

    __slots__ = ("aside", "at", "number", "tenant", "tickets")

    def __init__(self, tenant: Tenant, tickets: TicketHeap) -> None:
        self.tenant = tenant
        self.tickets = tickets
        self.leave()

    def leave(self) -> None:
        """Its entry is not valid any more."""
        self.at, self.number, self.aside = inf, 0, False


Entries = list[tuple[float, int, Bid]]


class Urgent:
    """Some tenants of one class with tickets of one kind, by when the first of those must start.

    A tenant stands aside while its counter is more than the headroom beyond the least. It is moved at most once for
    each time that its counter or its lateness changed, so finding the next one is O(log n). A bid has one valid entry
    in all of the class, with its number; others are dropped when they come to the top, or are the majority.
    ``numbers``: new ones for entries, the same for all of the class. ``soonest``: nobody is first who must start
    sooner; -infinity while somebody stands aside.
    """

    __slots__ = ("_aside", "_bids", "_numbers", "soonest")

    def __init__(self, numbers: Iterator[int]) -> None:
        self._bids: Entries = []
        self._aside: Entries = []
        self._numbers = numbers
        self.soonest = inf

    def offer(self, bid: Bid) -> None:
        """The first of its tickets may be another one."""
        if not bid.aside:
            entry = bid.tickets.first()
            if entry is not None and entry[2].start_by < bid.at:
                bid.at = entry[2].start_by
                self._bids = self._push(self._bids, bid.at, bid)
                self._look()

    def first(self, now: float, least: float, headroom: float, before: float) -> Ticket | None:
        """The first ticket of who has the least time left, if it must start ``before`` then; what had to start
        before ``now`` is relegated on the way. ``least``: the least counter of those with somebody waiting."""
        if self._aside and self._aside[0][0] - headroom <= least:
            self._bring_back(least, headroom)
        bids, found = self._bids, None
        while bids:
            start, number, bid = bids[0]
            if start >= before:
                break
            if number != bid.number:
                heappop(bids)
                continue
            tenant = bid.tenant
            if start < now:
                tenant.relegate(now)
                if number != bid.number:  # it goes elsewhere by that
                    continue
            entry = bid.tickets.first()
            if entry is None or tenant.counter - headroom > least:
                heappop(bids)
                bid.leave()
                if entry is not None:
                    bid.aside = True
                    self._aside = self._push(self._aside, tenant.counter, bid)
            elif entry[2].start_by > start:
                bid.at = entry[2].start_by
                heapreplace(bids, (bid.at, number, bid))
            else:
                found = entry[2]
                break
        self._look()
        return found

    def _look(self) -> None:
        bids = self._bids
        self.soonest = -inf if self._aside else bids[0][0] if bids else inf

    def _bring_back(self, least: float, headroom: float) -> None:
        aside = self._aside
        while aside and aside[0][0] - headroom <= least:
            _, number, bid = aside[0]
            if number != bid.number:
                heappop(aside)
                continue
            counter = bid.tenant.counter
            if counter - headroom > least:
                heapreplace(aside, (counter, number, bid))
                continue
            heappop(aside)
            bid.leave()
            self.offer(bid)

    def _push(self, entries: Entries, key: float, bid: Bid) -> Entries:
        bid.number = next(self._numbers)
        heappush(entries, (key, bid.number, bid))
        if len(entries) > 2 * bid.tenant.level.members + SLACK:
            entries = [one for one in entries if one[1] == one[2].number]
            heapify(entries)
        return entries
