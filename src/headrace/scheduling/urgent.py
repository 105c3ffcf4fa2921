"""Of the tenants that may go ahead of their turn, whose request has the least time left."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from headrace.scheduling.ticket_heap import SLACK

if TYPE_CHECKING:
    from headrace.scheduling.accounts import Tenant
    from headrace.scheduling.policy import Ticket

Entries = list[tuple[float, int, "Tenant"]]


class Urgent:
    """Some tenants of one class that have requests in time, by when the first of those must start.

    A tenant stands aside while its counter is more than the headroom beyond the least. It is moved at most once for
    each time that its counter or its lateness changed, so finding the next one is O(log n). A tenant has one valid
    entry in all of the class, with its ``urgent_number``; others are dropped when they come to the top, or
    are the majority. ``numbers``: new ones for entries, the same for all of the class. ``late``: of tenants with late
    requests, or of those without. ``bids``, ``aside``: heaps of entries; others may only look at them.
    """

    __slots__ = ("_numbers", "aside", "bids", "late")

    def __init__(self, numbers: Iterator[int], *, late: bool) -> None:
        self.late = late
        self.bids: Entries = []
        self.aside: Entries = []
        self._numbers = numbers

    def offer(self, tenant: Tenant) -> None:
        """Its first ticket may be another one."""
        if not tenant.aside:
            entry = tenant.tickets.first()
            if entry is not None and entry[2].start_by < tenant.bid:
                tenant.bid = entry[2].start_by
                self.bids = self._push(self.bids, tenant.bid, tenant)

    def first(self, now: float, least: float, headroom: float, before: float) -> Ticket | None:
        """The first ticket of who has the least time left, if it must start ``before`` then; what had to start
        before ``now`` is relegated on the way, and who has late requests by that goes elsewhere. ``least``:
        the least counter of those with somebody waiting."""
        if self.aside and self.aside[0][0] - headroom <= least:
            self._bring_back(least, headroom)
        bids = self.bids
        while bids:
            start, number, tenant = bids[0]
            if start >= before:
                return None
            if number != tenant.urgent_number:
                heappop(bids)
                continue
            if start < now:
                tenant.relegate(now)
            if (tenant.late.waiting > 0) is not self.late:
                heappop(bids)
                tenant.moves()
                continue
            entry = tenant.tickets.first()
            if entry is None or tenant.counter - headroom > least:
                heappop(bids)
                tenant.leaves_urgent()
                if entry is not None:
                    tenant.aside = True
                    self.aside = self._push(self.aside, tenant.counter, tenant)
            elif entry[2].start_by > start:
                tenant.bid = entry[2].start_by
                heapreplace(bids, (tenant.bid, number, tenant))
            else:
                return entry[2]
        return None

    def _bring_back(self, least: float, headroom: float) -> None:
        aside = self.aside
        while aside and aside[0][0] - headroom <= least:
            _, number, tenant = aside[0]
            if number != tenant.urgent_number:
                heappop(aside)
                continue
            if tenant.counter - headroom > least:
                heapreplace(aside, (tenant.counter, number, tenant))
                continue
            heappop(aside)
            tenant.moves()

    def _push(self, entries: Entries, key: float, tenant: Tenant) -> Entries:
        tenant.urgent_number = next(self._numbers)
        heappush(entries, (key, tenant.urgent_number, tenant))
        if len(entries) > 2 * tenant.level.members + SLACK:
            entries = [one for one in entries if one[1] == one[2].urgent_number]
            heapify(entries)
        return entries
