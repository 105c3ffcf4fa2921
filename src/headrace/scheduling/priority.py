"""Priority classes with ageing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.scheduling.ordered import Ordered, recomputed
from headrace.scheduling.policy import Ticket, steps
from headrace.scheduling.promises import arrival, at_least, listed, text

LEVELS = "interactive", "standard", "batch"
AGE_S = 60.0


class Priority(Ordered):
    """The class that comes first in ``levels`` runs first; a request that has waited ``age_s`` counts as one class
    higher, so that nobody waits for ever. A class that is not in ``levels`` comes last."""

    __slots__ = ("_age_s", "_ranks")
    name = "priority"

    def __init__(self, *, levels: Sequence[str] = LEVELS, age_s: float = AGE_S) -> None:
        super().__init__()
        levels = [text(f"levels[{at}]", one) for at, one in enumerate(listed("levels", levels))]
        if len(set(levels)) != len(levels):
            raise ValueError("levels: a class is named twice")
        self._ranks = {level: rank for rank, level in enumerate(levels)}
        self._age_s = at_least("age_s", age_s, 0)

    def key(self, ticket: Ticket, now: float) -> float:
        """As everybody ages at the same speed, the order never changes: by arrival, later for lower classes."""
        return arrival(ticket, now) + self._rank(ticket) * self._age_s + steps(ticket.priority)

    def _rank(self, ticket: Ticket) -> int:
        return self._ranks.get(ticket.terms.level, len(self._ranks))

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        """Of the lowest class below it, the one that loses least by being computed again; not one that has
        come so long before that it is more urgent by now."""
        rank, key = self._rank(ticket), self.key(ticket, now)
        lower = [one for one in running if self._rank(one) > rank and self.key(one, now) > key]
        return max(lower, key=lambda one: (self._rank(one), -recomputed(one)), default=None)
