"""Which of an engine process's slots computes what: a decider.

The prefix cache is per slot, so a prompt goes to the free slot whose content it shares the longest
beginning with; among equals to the one that has been free for longest. Slots are ours to give, so that
a run that computes its prompt in steps finds its own cache again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Content = str | tuple[int, ...]
"""What a slot has computed: its token ids, or a text where they are not known."""
Start = Callable[[int], None]


class SlotTable:
    """Slots 0 … ``count`` - 1. Who finds none free waits, first come first served; the line is bounded by
    the queue before the engine (a run has at most as many streams as choices)."""

    def __init__(self, count: int) -> None:
        self._free = deque(range(count))
        self._held: list[Content] = [()] * count
        self._waiting: dict[Ticket, None] = {}

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return len(self._free)

    def ask(self, wanted: Content, start: Start) -> Ticket:
        """``start`` is called with a slot's number, at once or when one is free."""
        ticket = Ticket(self, wanted, start)
        if self._free:
            self._give(ticket)
        else:
            self._waiting[ticket] = None
        return ticket

    def _give(self, ticket: Ticket) -> None:
        slot = max(self._free, key=lambda slot: shared(self._held[slot], ticket.wanted))
        self._free.remove(slot)
        ticket.slot = slot
        ticket.start(slot)

    def take_back(self, ticket: Ticket) -> None:
        """The ticket's holder is through, or does not want a slot any more."""
        self._waiting.pop(ticket, None)
        slot, ticket.slot = ticket.slot, -1
        if slot < 0:
            return
        self._free.append(slot)
        if self._waiting:
            following = next(iter(self._waiting))
            del self._waiting[following]
            self._give(following)

    def shares(self, slot: int, wanted: Content) -> int:
        """How much of this a slot has computed already, as far as its holders said."""
        return shared(self._held[slot], wanted)

    def holds(self, slot: int, content: Content) -> None:
        """A slot has computed this, and nothing else: its holder says so."""
        self._held[slot] = content


class Ticket:
    """A place in the line, then a slot (``slot`` ≥ 0)."""

    __slots__ = ("_table", "slot", "start", "wanted")

    def __init__(self, table: SlotTable, wanted: Content, start: Start) -> None:
        self._table = table
        self.wanted = wanted
        self.start = start
        self.slot = -1

    def give_back(self) -> None:
        """Idempotent."""
        self._table.take_back(self)


def shared(one: Content, other: Content) -> int:
    """Length of the beginning that two contents share; a text and ids share nothing."""
    if one == other:
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
