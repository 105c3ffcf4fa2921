"""Which of an engine process's slots computes what: a decider.

The prefix cache is per slot, so a prompt goes to the free slot whose content it shares the longest
beginning with; among equals to the one that has been free for longest. Slots are ours to give, so that
a run that computes its prompt in steps finds its own cache again.

Where all are taken, the next few may be sent *early*: without a slot, to wait in the process's own line. It
fills a slot between two batches; a request sent only when the answer before it was read would come one
batch later, and the slot would idle for it. Which slot an early one gets is known when it ends. Until then it
cannot be told which others are free, so those who follow are sent without one too, and nobody may come back
to a slot of its own: between two of its requests another could be given it. So nobody is sent early either
while somebody has a slot and is not *settled*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Content = str | tuple[str | int, ...]
"""What a slot has computed: its token ids, or a text where they are not known."""
ANY = -1
"""In place of a slot's number: whichever the process chooses."""


class SlotTable:
    """Slots 0 … ``count`` - 1. Who finds none free waits, first come first served; the line is bounded by
    the queue before the engine (a run has at most as many streams as choices). ``early``: how many may
    wait in the process. Who leaves there keeps its place until a slot comes to it: the process notices
    only then, and computes one batch for nobody."""

    def __init__(self, count: int, early: int = 0) -> None:
        self._count = count
        self._most_early = early
        self._held: list[Content] = [()] * count
        # Those without a known holder, the one free for longest first; free only if `_anywhere` is 0.
        self._open = deque(range(count))
        self._taken = 0
        self._anywhere = 0
        self._unsettled = 0
        self._early: deque[Ticket] = deque()
        self._waiting: dict[Ticket, None] = {}

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self._count - self._taken

    @property
    def crowded(self) -> bool:
        """Whether more than one is under way in the process."""
        return self._taken > 1

    def ask(self, wanted: Content, start: Callable[[Ticket], None], early: bool = False) -> Ticket:
        """``start`` is called with the ticket, at once or when a slot is free. ``early``: one request, to any
        slot, is all that is to be sent, so that it may be called before one is free too."""
        ticket = Ticket(self, wanted, start, early)
        self._waiting[ticket] = None
        self._serve()
        return ticket

    def settle(self, ticket: Ticket) -> None:
        """Its slot computes its last request, and is not left until the ticket is given back."""
        if ticket.unsettled:
            ticket.unsettled = False
            self._unsettled -= 1
            self._serve()

    def take_back(self, ticket: Ticket) -> None:
        """The ticket's holder is through, or does not want a slot any more."""
        if ticket.left:
            return
        ticket.left = True
        self._waiting.pop(ticket, None)
        if ticket.unsettled:
            ticket.unsettled = False
            self._unsettled -= 1
        if ticket.placed:
            if ticket.slot >= 0:
                self._open.append(ticket.slot)
            else:
                self._anywhere -= 1
            self._taken -= 1
            self._advance()
        self._serve()

    def shares(self, slot: int, wanted: Content) -> int:
        """How much of this a slot has computed already, as far as its holders said."""
        return shared(self._held[slot], wanted)

    def holds(self, slot: int, content: Content) -> None:
        """A slot has computed this, and nothing else: its holder says so."""
        self._held[slot] = content

    def _advance(self) -> None:
        """The process gives a free slot to the first in its line that is still wanted."""
        while self._early:
            first = self._early.popleft()
            if not first.left:
                self._place(first, ANY)
                return

    def _serve(self) -> None:
        """Whoever can start starts, in order."""
        while self._waiting:
            ticket = next(iter(self._waiting))
            if self.free and not self._anywhere:
                slot = max(self._open, key=lambda slot: shared(self._held[slot], ticket.wanted))
                self._open.remove(slot)
                ticket.unsettled = True
                self._unsettled += 1
                self._place(ticket, slot)
            elif self._unsettled or not ticket.early:
                return
            elif self.free:
                self._place(ticket, ANY)
            elif len(self._early) < self._most_early:
                self._early.append(ticket)
            else:
                return
            del self._waiting[ticket]
            ticket.start(ticket)

    def _place(self, ticket: Ticket, slot: int) -> None:
        ticket.placed = True
        ticket.slot = slot
        self._taken += 1
        if slot < 0:
            self._anywhere += 1


class Ticket:
    """A place in the line, then a slot: a known one (``slot`` ≥ 0), or one of the process's choice."""

    __slots__ = ("_table", "early", "left", "placed", "slot", "start", "unsettled", "wanted")

    def __init__(
        self, table: SlotTable, wanted: Content, start: Callable[[Ticket], None], early: bool
    ) -> None:
        self._table = table
        self.wanted = wanted
        self.start = start
        self.early = early
        self.left = self.placed = self.unsettled = False
        self.slot = ANY

    def settle(self) -> None:
        """Its last request is being computed. Idempotent."""
        self._table.settle(self)

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
