"""Earliest deadline first."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.scheduling.ordered import Ordered
from headrace.scheduling.policy import Ticket, steps
from headrace.scheduling.promises import TARGETS_S, arrival, due_at, each_at_least


class Edf(Ordered):
    """By when the first token is due. Under overload everybody is served just too late, and a tenant with a short
    target takes all: it is for a trusted set of tenants whose load fits.

    ``targets_s``: by class, for requests without a deadline.
    """

    __slots__ = ("_targets_s",)
    name = "edf"

    def __init__(self, *, targets_s: Mapping[str, float] = TARGETS_S) -> None:
        super().__init__()
        self._targets_s = each_at_least("targets_s", targets_s, 0)

    def key(self, ticket: Ticket, now: float) -> float:
        return due_at(ticket, arrival(ticket, now), self._targets_s) + steps(ticket.priority)
