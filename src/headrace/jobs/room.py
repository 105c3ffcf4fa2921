"""How many rows of a model are under way at once, those of all jobs together: what its slots take, and none more
where they are not alone. One more would stand in an engine's own line (llama.cpp has one), where a live request that
comes later is behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MOST = 512
"""Rows of one model, whatever room its engines say they have."""

Slots = Callable[[str], tuple[str, int]]
"""A model's own name, and how many it can run at once now. Raises ``MODEL_NOT_FOUND``."""


class Room:
    """``slots``: how many the model has now. Who comes first gets in first."""

    def __init__(self, slots: Callable[[], int], most: int = MOST) -> None:
        self._slots = slots
        self._most = most
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()  # bounded by the jobs that run

    @property
    def inside(self) -> int:
        return self._inside

    async def enter(self) -> None:
        """Wait until one more may be under way. Then :meth:`leave` is owed."""
        if self._waiting or self._inside >= self._limit():
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.leave()
                raise
        else:
            self._inside += 1

    def leave(self) -> None:
        self._inside -= 1
        while self._waiting and self._inside < self._limit():
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)

    def _limit(self) -> int:
        return min(max(self._slots(), 1), self._most)


class Rooms:
    """One for each model that rows have asked for."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._rooms: dict[str, Room] = {}  # bounded by the models that are served

    def of(self, model: str) -> Room:
        """By any of the model's names. Raises ``MODEL_NOT_FOUND``."""
        name, _ = self._slots(model)
        room = self._rooms.get(name)
        if room is None:
            self._rooms[name] = room = Room(lambda: self._slots(name)[1])
        return room
