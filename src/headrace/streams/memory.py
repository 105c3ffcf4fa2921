"""``MemoryStore``: logs that live as long as the process, with the same rules and bounds as on disk."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice

from headrace.domain.delta import Delta
from headrace.domain.event import End, Event
from headrace.streams.bounds import TOMBSTONES, Bounds, Clock, gone
from headrace.streams.repeats import KEEP_S
from headrace.streams.runs import Runs
from headrace.streams.store import KeptLog, LogHeader, LogWriter, Recovered, Repeat


class _Entry:
    """One log, and its :class:`headrace.streams.store.LogWriter`. ``ended_at`` orders the finished ones for the
    bounds; ``finish`` is called once it is one of them."""

    __slots__ = ("_finish", "end", "ended_at", "header", "runs", "size")

    def __init__(self, header: LogHeader, finish: Callable[[_Entry], None]) -> None:
        self.header = header
        self.runs = Runs()
        self.end: End | None = None
        self.ended_at = 0.0
        self.size = HEADER_BYTES
        self._finish = finish

    def append(self, events: Sequence[Event], raw: Sequence[Delta], end: End | None) -> None:
        self.runs.add(events)
        if end is not None:
            self.end = end
            self._finish(self)

    def left(self, left_at: float | None) -> None:
        """Nothing to note: no generation outlives the process."""


HEADER_BYTES = 1024
"""What one log counts for ``keep_bytes`` besides its events."""


class MemoryStore:
    """Implements :class:`headrace.streams.store.Store`. Nothing survives the process, so ``raw`` deltas
    are not kept."""

    def __init__(self, bounds: Bounds | None = None, *, clock: Clock = time.time) -> None:
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[tuple[str, str], str] = {}  # of some of them
        self._finished: dict[str, _Entry] = {}  # bounded by Bounds
        self._passing: list[tuple[float, str]] = []  # a heap; some may be gone already
        self._finished_bytes = 0
        self._dropped: OrderedDict[str, None] = OrderedDict()  # bounded by TOMBSTONES

    async def open(self) -> list[Recovered]:
        return []

    def begin(
        self, header: LogHeader, events: Sequence[Event], raw: Sequence[Delta], end: End | None
    ) -> LogWriter | None:
        entry = self._entries[header.id] = _Entry(header, self._finish)
        if (once := header.caller.once) is not None:
            self._keys[header.caller.tenant, once.key] = header.id
        entry.append(events, raw, end)
        return None if end is not None else entry

    def writer(self, id: str) -> LogWriter:
        return self._entries[id]

    async def find(self, id: str) -> KeptLog | None:
        self._drop_aged()
        entry = self._entries.get(id)
        if entry is None:
            self._refuse_dropped(id)
            return None
        return KeptLog(entry.header, entry.runs.last, entry.end)

    def recent(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        entry = self._entries.get(id)
        return [] if entry is None else entry.runs.after(after, limit_bytes)

    async def read(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        self._drop_aged()
        if id not in self._entries:
            self._refuse_dropped(id)
        return self.recent(id, after, limit_bytes)

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[LogHeader]:
        self._drop_aged()
        return [*islice(self._of(tenant, session_id), limit)]

    async def repeat(self, tenant: str, key: str) -> Repeat | None:
        id = self._keys.get((tenant, key))
        if id is None:
            return None
        created = self._entries[id].header.created
        return Repeat(tenant, key, id, created) if created >= self._clock() - KEEP_S else None

    async def delete(self, id: str) -> None:
        self._forget(id)

    async def caught_up(self) -> None:
        """Nothing is ever behind."""

    async def close(self) -> None:
        """Nothing is left to be done."""

    def _of(self, tenant: str, session_id: str | None) -> Iterator[LogHeader]:
        for entry in reversed(self._entries.values()):
            if entry.header.is_of(tenant, session_id):
                yield entry.header

    def _finish(self, entry: _Entry) -> None:
        id, keep_s = entry.header.id, entry.header.keep_s
        entry.ended_at = self._clock()
        entry.size += entry.runs.size
        self._finished[id] = entry
        self._finished_bytes += entry.size
        if keep_s is not None:
            heappush(self._passing, (entry.ended_at + keep_s, id))
            if len(self._passing) > 2 * len(self._finished):  # most were dropped before their time
                self._passing = [one for one in self._passing if one[1] in self._finished]
                heapify(self._passing)
        bounds = self._bounds
        while self._finished and (
            len(self._finished) > bounds.keep_generations
            or self._finished_bytes > bounds.keep_bytes
        ):
            self._drop_oldest()
        self._drop_aged()

    def _drop_aged(self) -> None:
        now = self._clock()
        while self._passing and self._passing[0][0] < now:
            self._forget(heappop(self._passing)[1])
        horizon = now - self._bounds.keep_s
        while self._finished and next(iter(self._finished.values())).ended_at < horizon:
            self._drop_oldest()

    def _forget(self, id: str) -> None:
        """An ended log, as if it had never been. Without effect where there is none."""
        entry = self._finished.pop(id, None)
        if entry is None:
            return
        del self._entries[id]
        self._finished_bytes -= entry.size
        caller = entry.header.caller
        if caller.once is not None:
            key = caller.tenant, caller.once.key
            if self._keys.get(key) == id:
                del self._keys[key]

    def _drop_oldest(self) -> None:
        id = next(iter(self._finished))
        self._forget(id)
        self._dropped[id] = None
        if len(self._dropped) > TOMBSTONES:
            self._dropped.popitem(last=False)

    def _refuse_dropped(self, id: str) -> None:
        if id in self._dropped:
            raise gone(id)
