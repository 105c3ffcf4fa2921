"""What all policies share (:class:`Base`), and those whose order is fixed when a request joins (:class:`Ordered`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice

from headrace.scheduling.policy import Ticket, make_sane, tokens
from headrace.scheduling.promises import arrival
from headrace.scheduling.ticket_heap import TicketHeap


def recomputed(ticket: Ticket) -> float:
    """Tokens that have to be computed again when it goes on elsewhere."""
    return tokens(ticket.prompt_tokens) + tokens(ticket.produced)


class Base:
    """Numbers the stays of who waits, and counts what is produced; charges nobody."""

    __slots__ = ("_stays", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, Ticket] = {}
        self._stays = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._waiting.values())

    def _join(self, ticket: Ticket, now: float) -> bool:
        """Give it a stay; False if it has one here."""
        if ticket.stay and self._waiting.get(ticket.stay) is ticket:
            return False
        make_sane(ticket, now)
        self._stays = ticket.stay = self._stays + 1
        self._waiting[ticket.stay] = ticket
        return True

    def _leave(self, ticket: Ticket) -> bool:
        """Take its stay from it; False if it has none here."""
        waiting, stay = self._waiting, ticket.stay
        if waiting.get(stay) is not ticket:
            return False
        del waiting[stay]
        ticket.stay = 0
        return True

    @abstractmethod
    def peek(self, now: float) -> Ticket | None: ...

    @abstractmethod
    def remove(self, ticket: Ticket) -> bool: ...

    def take(self, now: float) -> Ticket | None:
        ticket = self.peek(now)
        if ticket is not None:
            self.serve(ticket, now)
        return ticket

    def serve(self, ticket: Ticket, now: float) -> bool:
        return self.remove(ticket)

    def began(self, ticket: Ticket, now: float) -> None:
        ticket.charged = True

    def produced(self, ticket: Ticket, count: int, now: float) -> None:
        ticket.produced += int(tokens(count))

    def first_token(self, ticket: Ticket, now: float) -> None:
        pass

    def settled(self, ticket: Ticket, prompt_tokens: int, cached_tokens: int) -> None:
        pass

    def ended(self, ticket: Ticket, now: float) -> None:
        pass

    def refused(self, ticket: Ticket) -> None:
        pass

    def expired(self, now: float) -> list[Ticket]:
        return []

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        return None

    def waiting(self, ticket: Ticket) -> int:
        return 0

    def hurries(self, ticket: Ticket, running: Iterable[Ticket], now: float, replica: str) -> bool:
        return self.victim(ticket, running, now) is not None


class Ordered(Base):
    """The least :meth:`key` runs first, the sheddable one with the greatest gives way first."""

    __slots__ = ("_heap", "_sheddable")

    def __init__(self) -> None:
        super().__init__()
        self._heap = TicketHeap()
        self._sheddable = TicketHeap()

    def key(self, ticket: Ticket, now: float) -> float:
        """Who is due first: its arrival, unless a policy says otherwise."""
        return arrival(ticket, now)

    def add(self, ticket: Ticket, now: float) -> None:
        if self._join(ticket, now):
            key = self.key(ticket, now)
            self._heap.push(key, ticket)
            if ticket.terms.sheddable and not ticket.begun:
                self._sheddable.push(-key, ticket)

    def remove(self, ticket: Ticket) -> bool:
        if not self._leave(ticket):
            return False
        self._heap.left()
        if ticket.terms.sheddable and not ticket.begun:
            self._sheddable.left()
        return True

    def peek(self, now: float) -> Ticket | None:
        entry = self._heap.first()
        return None if entry is None else entry[2]

    def least_urgent(self, now: float, than: Ticket | None = None) -> Ticket | None:
        entry = self._sheddable.first()
        if entry is None or (than is not None and -entry[0] <= self.key(than, now)):
            return None
        return entry[2]

    def ranked(self, now: float, limit: int) -> list[Ticket]:
        return [entry[2] for entry in islice(self._heap.in_order(), limit)]
