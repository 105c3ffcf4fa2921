"""The bounded first-in-first-out queue of one model: who waits, how long, and who is next.

A plain synchronous decider: time comes in as an argument. Policies other than first-in-first-out
replace :meth:`Queue.first`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from headrace.domain.errors import Code, HeadraceError


class Waiting(Protocol):
    """What can stand in a queue: anything with an id."""

    @property
    def id(self) -> str: ...


W = TypeVar("W", bound=Waiting)


class Queue(Generic[W]):
    """At most ``limit`` wait; each at most ``timeout_s`` seconds. ``waiting``: who does and since when, by id;
    others may only look at it."""

    __slots__ = ("limit", "timeout_s", "waiting")

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.limit = limit
        self.timeout_s = timeout_s
        self.waiting: OrderedDict[str, tuple[W, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiting)

    def push(self, item: W, now: float) -> int:
        """Join at the end; returns the position from 1. Raises ``QUEUE_FULL`` with ``Retry-After``."""
        if len(self.waiting) >= self.limit:
            raise HeadraceError(
                Code.QUEUE_FULL,
                f"{self.limit} requests are waiting for this model already; try again shortly.",
                retry_after_s=1.0,
            )
        self.waiting[item.id] = (item, now)
        return len(self.waiting)

    def push_front(self, item: W, now: float) -> None:
        """Rejoin before everybody else (its run broke); never refused: it was admitted already."""
        self.waiting[item.id] = (item, now)
        self.waiting.move_to_end(item.id, last=False)

    def first(self) -> W | None:
        """Who is next; None if nobody waits."""
        for item, _ in self.waiting.values():
            return item
        return None

    def next(self) -> W | None:
        """Take who is :meth:`first`."""
        item = self.first()
        if item is not None:
            del self.waiting[item.id]
        return item

    def remove(self, item: W) -> bool:
        """Leave the queue; whether it was in there."""
        return self.waiting.pop(item.id, None) is not None

    def overdue(self, now: float) -> list[W]:
        """All that have waited longer than the limit; they stay."""
        return [item for item, since in self.waiting.values() if now - since > self.timeout_s]

    def items(self) -> list[W]:
        """All who wait, in order."""
        return [item for item, _ in self.waiting.values()]
