"""Which tenant has most waiting of what may be shed."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from headrace.scheduling.ticket_heap import SLACK

if TYPE_CHECKING:
    from headrace.scheduling.accounts import Tenant


class Crowded:
    """The tenants of one class with sheddable tickets, by their horizons as they were when the last such joined, the
    farthest first: its last ticket would be the last to run. A horizon that has come nearer since is put right
    when it comes to the top."""

    __slots__ = ("_entries", "_number")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Tenant]] = []
        self._number = 0

    def joined(self, tenant: Tenant) -> None:
        """A sheddable ticket of it waits."""
        self._number += 1
        tenant.crowd_number = self._number
        heappush(self._entries, (-tenant.horizon, self._number, tenant))
        if len(self._entries) > 2 * tenant.level.members + SLACK:
            self._entries = [one for one in self._entries if one[1] == one[2].crowd_number]
            heapify(self._entries)

    def first(self) -> Tenant | None:
        """Who has the farthest horizon."""
        entries = self._entries
        while entries:
            horizon, number, tenant = entries[0]
            if number != tenant.crowd_number:
                heappop(entries)
            elif tenant.sheddable.first() is None:
                heappop(entries)
                tenant.crowd_number = 0
            elif -tenant.horizon > horizon:
                heapreplace(entries, (-tenant.horizon, number, tenant))
            else:
                return tenant
        return None
