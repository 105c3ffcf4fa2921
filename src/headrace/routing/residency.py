"""Which loaded models leave memory: those that rest too long, and for a new one those used the longest ago.

A plain decider: it knows sizes and times that it is given (monotonic seconds), and loads nothing itself. A model in use
is never named.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)


class Resident(msgspec.Struct):
    """A loaded model. ``idle_s``: it leaves when it was not used for so long; None: never by itself."""

    size_bytes: int
    used_at: float
    idle_s: float | None = None
    in_use: int = 0


class Residency(Generic[K]):
    """``budget_bytes`` of all together; None: as many as there are. Bounded by the configured models."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self._residents: dict[K, Resident] = {}

    @property
    def residents(self) -> Sequence[K]:
        """All that are loaded."""
        return list(self._residents)

    @property
    def bytes(self) -> int:
        """Of all that are loaded."""
        return sum(one.size_bytes for one in self._residents.values())

    def fits(self, size_bytes: int) -> bool:
        """Whether so much could be loaded if nothing else were."""
        return self.budget_bytes is None or size_bytes <= self.budget_bytes

    def make_room(self, size_bytes: int) -> Sequence[K] | None:
        """Who has to leave so that so much can come, used the longest ago first; None while those in use leave
        no room."""
        if self.budget_bytes is None:
            return ()
        excess = self.bytes + size_bytes - self.budget_bytes
        leaving: list[K] = []
        for key, one in sorted(self._residents.items(), key=lambda item: item[1].used_at):
            if excess <= 0:
                break
            if not one.in_use:
                leaving.append(key)
                excess -= one.size_bytes
        return leaving if excess <= 0 else None

    def came(self, key: K, size_bytes: int, now: float, idle_s: float | None = None) -> None:
        """It is loaded, or begins to be."""
        self._residents[key] = Resident(size_bytes, now, idle_s)

    def left(self, key: K) -> None:
        """Idempotent."""
        self._residents.pop(key, None)

    def began(self, key: K, now: float) -> None:
        """Somebody uses it; told again with :meth:`ended`."""
        one = self._residents[key]
        one.in_use += 1
        one.used_at = now

    def ended(self, key: K, now: float) -> None:
        one = self._residents.get(key)
        if one is not None:
            one.in_use -= 1
            one.used_at = now

    def in_use(self, key: K) -> bool:
        one = self._residents.get(key)
        return one is not None and one.in_use > 0

    def resting(self, now: float) -> Sequence[K]:
        """Who was not used for longer than it may rest."""
        return [
            key
            for key, one in self._residents.items()
            if one.idle_s is not None and not one.in_use and now - one.used_at > one.idle_s
        ]
