"""The dynamic batcher: which of the requests that wait for a model run together, and when.

An idle engine starts at once with whoever waits; while it is busy the others gather by themselves. Only for clients
that come back at once is it held back a little (:mod:`headrace.scheduling.lingering`).

A plain synchronous decider: no clock (``now`` is monotonic seconds and comes in), no I/O. Every operation is O(log n)
in those that wait, but that choosing a run is linear in their keys, or O(n log n) where rows are padded (and n for each
preferred size at most), and shedding linear in their number.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.scheduling.alike import Bounds, alike
from headrace.scheduling.lingering import Lingering, RunCost
from headrace.scheduling.policy import steps
from headrace.scheduling.queue import RETRY_S, Overflow
from headrace.scheduling.ticket_heap import SLACK

T = TypeVar("T")

LONG_MEMORY = 1.0 / 64.0
"""Weight of the newest run, for what runs cost beside their elements: lengths vary more than numbers of rows."""


class BatchQueue(msgspec.Struct):
    """Requests that may wait for a model's runs (and as many outside), and how long each; may change while some do."""

    limit: int = 1024
    timeout_s: float = 120.0


class BatchOptions(msgspec.Struct, frozen=True):
    """``max_batch_size``: rows of a run. ``max_wait_ms``: an idle engine is never held back longer for more rows; 0:
    never. ``preferred``: rows of runs that the engine computes best; others are made where these cannot be.
    ``instances``: runs at once."""

    max_batch_size: int
    max_wait_ms: float = 5.0
    preferred: tuple[int, ...] = ()
    instances: int = 1
    queue: BatchQueue = msgspec.field(default_factory=BatchQueue)


class Entry(msgspec.Struct, Generic[T], eq=False):
    """One request. ``key``: what runs together has equal ones. ``priority``: lower is sooner, as in
    :mod:`headrace.scheduling.policy`. ``deadline``: it is refused when its run has not begun by then. ``overflow``:
    what becomes of it when it finds the queue full; *shed* takes the latest of those that are ``sheddable`` and whose
    priority is less, who would *spill* has found no room elsewhere. ``length``: of the longest of its rows, where
    a run pads all to the longest and is padding to the share ``padding`` at most; 0: nothing is padded.
    ``own_padding``: elements that its other rows lack to its longest, all together. ``answer`` belongs to who asks. All
    below that belongs to the batcher."""

    item: T
    key: Hashable
    rows: int = 1
    priority: int = 0
    deadline: float = math.inf
    overflow: Overflow = Overflow.REJECT
    sheddable: bool = False
    length: int = 0
    padding: float = 0.0
    own_padding: int = 0
    answer: Any = None

    since: float = 0.0
    """When it came."""
    number: int = 0
    """It was so-manieth."""
    waits: bool = False
    """It runs not yet, and will."""


class Batch(msgspec.Struct, Generic[T], eq=False):
    """A run: ``rows`` of all entries together, which are in the order in which they came, by priority. ``length``: of
    the longest."""

    key: Hashable
    entries: list[Entry[T]]
    rows: int
    started_at: float
    length: int = 0


class Decision(NamedTuple, Generic[T]):
    """``batch``: to run now, None if nothing is. ``late``: to be refused, their deadline has passed. ``look_at``:
    when to decide again if nothing happens until then; infinite: then never."""

    batch: Batch[T] | None
    late: Sequence[Entry[T]]
    look_at: float


class _Group(Generic[T]):
    """Those of one key that wait. ``ranked``: by rank, with some that are gone."""

    __slots__ = ("ranked", "rows", "waiting")

    def __init__(self) -> None:
        self.ranked: list[tuple[float, int, Entry[T]]] = []
        self.rows = 0
        self.waiting = 0

    def first(self) -> tuple[float, int, Entry[T]]:
        """The first that waits; there is one."""
        ranked = self.ranked
        while not ranked[0][2].waits:
            heappop(ranked)
        return ranked[0]


class Batcher(Generic[T]):
    """Raises :class:`ValueError` for options that are impossible. ``idle``: runs that could start."""

    __slots__ = (
        *("_by_deadline", "_elements", "_groups", "_lingering", "_number", "_options", "_outside"),
        *("_sizes", "idle", "waiting"),
    )

    def __init__(self, options: BatchOptions) -> None:
        most = options.max_batch_size
        if most < 1 or options.instances < 1:
            raise ValueError("max_batch_size and instances must be at least 1")
        if any(not 1 <= size <= most for size in options.preferred):
            raise ValueError("preferred: each must be from 1 to max_batch_size")
        self._options = options
        self._sizes = frozenset(options.preferred)
        self._lingering = Lingering(options.max_wait_ms / 1000.0)
        self._elements = RunCost(LONG_MEMORY)
        self._groups: dict[Hashable, _Group[T]] = {}
        self._outside: OrderedDict[int, Entry[T]] = OrderedDict()  # bounded by the queue's limit
        self._by_deadline: list[tuple[float, int, Entry[T]]] = []
        self._number = 0
        self.idle = options.instances
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether nobody can join those that wait inside."""
        return self.waiting >= self._options.queue.limit

    def is_alone(self, rows: int, deadline: float, now: float) -> bool:
        """Whether who comes now could start at once, and nobody waits: nothing would be decided about it."""
        return self.idle > 0 and not self.waiting and rows == 1 and deadline >= now

    def add(self, entry: Entry[T], now: float) -> Entry[T] | None:
        """It waits from now on. Returns who was shed for it. Raises ``INVALID_REQUEST`` for more rows than a run has,
        ``QUEUE_TIMEOUT`` if its deadline has passed, ``QUEUE_FULL`` with ``Retry-After``."""
        options = self._options
        queue = options.queue
        if not 1 <= entry.rows <= options.max_batch_size:
            raise _wrong_size(entry.rows, options.max_batch_size)
        if not entry.deadline >= now:
            raise too_late()
        gave_way = None
        outside = False
        if self.full:
            outside, gave_way = self._make_room(entry)
        entry.since = now
        self._number = entry.number = self._number + 1
        entry.waits = True
        latest = now + queue.timeout_s
        if entry.deadline > latest:
            entry.deadline = latest
        heappush(self._by_deadline, (entry.deadline, entry.number, entry))
        if outside:
            self._outside[entry.number] = entry
        else:
            self._join(entry)
        self._lingering.arrived(now)
        return gave_way

    def remove(self, entry: Entry[T]) -> bool:
        """Its caller left; whether it waited. What runs already runs on."""
        if not entry.waits:
            return False
        self._leave(entry)
        self._let_in()
        return True

    def decide(self, now: float) -> Decision[T]:
        """What to do now. Ask again after each batch."""
        late = self._late(now)
        if not self.idle or not self._groups:
            return Decision(None, late, self._first_deadline())
        group = min(self._groups.values(), key=_rank)
        run = self._alike(group) if group.first()[2].length else None
        until = self._held_until(group, now, some_stay=run is not None and len(run) < group.waiting)
        if until > now:
            return Decision(None, late, until)
        batch = self._take(self._fitting(group) if run is None else run, now)
        self._let_in()
        return Decision(batch, late, self._first_deadline())

    def ended(self, batch: Batch[T], now: float, *, well: bool = True) -> None:
        """A run is over; of one that did not end ``well`` nothing is learned."""
        self.idle += 1
        if well:
            took_s = now - batch.started_at
            self._lingering.ran(len(batch.entries), batch.rows, took_s, now)
            if batch.length:
                self._elements.learn(batch.rows * batch.length, took_s)

    def clear(self) -> list[Entry[T]]:
        """All who wait, in the order they came; nobody does any more."""
        gone = [entry for _, _, entry in self._by_deadline if entry.waits]
        gone.sort(key=lambda entry: entry.number)
        for entry in gone:
            self._leave(entry)
        return gone

    def _join(self, entry: Entry[T]) -> None:
        group = self._groups.get(entry.key)
        if group is None:
            group = self._groups[entry.key] = _Group()
        rank = entry.since + steps(entry.priority) if entry.priority else entry.since
        heappush(group.ranked, (rank, entry.number, entry))
        group.rows += entry.rows
        group.waiting += 1
        self.waiting += 1

    def _leave(self, entry: Entry[T]) -> None:
        """It waits no more. Stale entries go when they come to the top, or are the majority."""
        entry.waits = False
        if self._outside.pop(entry.number, None) is None:
            self.waiting -= 1
            group = self._groups[entry.key]
            group.rows -= entry.rows
            group.waiting -= 1
            if not group.waiting:
                del self._groups[entry.key]
            elif len(group.ranked) > 2 * group.waiting + SLACK:
                _sweep(group.ranked)
        if len(self._by_deadline) > 2 * (self.waiting + len(self._outside)) + SLACK:
            _sweep(self._by_deadline)

    def _let_in(self) -> None:
        outside = self._outside
        while outside and self.waiting < self._options.queue.limit:
            self._join(outside.popitem(last=False)[1])

    def _make_room(self, entry: Entry[T]) -> tuple[bool, Entry[T] | None]:
        """Whether it waits outside, and who gave way to it. Raises ``QUEUE_FULL``."""
        limit = self._options.queue.limit
        if entry.overflow is Overflow.WAIT and len(self._outside) < limit:
            return True, None
        if entry.overflow is Overflow.SHED:
            inside = [one for _, _, one in self._by_deadline if self._may_be_shed(one)]
            last = max(inside, key=lambda one: (one.priority, one.number), default=entry)
            if last.priority > entry.priority:
                self._leave(last)
                return False, last
        raise full(limit)

    def _may_be_shed(self, entry: Entry[T]) -> bool:
        return entry.sheddable and entry.waits and entry.number not in self._outside

    def _late(self, now: float) -> Sequence[Entry[T]]:
        """Those whose deadline has passed: they were removed."""
        if not self._first_deadline() < now:
            return ()
        late = []
        while self._first_deadline() < now:
            late.append(heappop(self._by_deadline)[2])
            self._leave(late[-1])
        self._let_in()
        return late

    def _first_deadline(self) -> float:
        by_deadline = self._by_deadline
        while by_deadline and not by_deadline[0][2].waits:
            heappop(by_deadline)
        return by_deadline[0][0] if by_deadline else math.inf

    def _held_until(self, group: _Group[T], now: float, *, some_stay: bool) -> float:
        """Until when an idle engine waits for more of this group; in the past: it starts. Where others wait as well,
        there is enough to do. ``some_stay``: others of this group, for the next run."""
        if some_stay or group.rows >= self._options.max_batch_size or len(self._groups) > 1:
            return now
        until = self._lingering.until
        return until if until < self._first_deadline() else now

    def _alike(self, group: _Group[T]) -> list[tuple[float, int, Entry[T]]]:
        """The group's first entry, and those that are best padded together with it."""
        first = group.first()
        waiting = [one for one in group.ranked if one[2].waits]
        bounds = Bounds(self._options.max_batch_size, self._sizes, first[2].padding)
        return alike(first, waiting, bounds, self._elements.fixed_rows)

    def _fitting(self, group: _Group[T]) -> list[tuple[float, int, Entry[T]]]:
        """The group's first entries, as many as fit; of a preferred size, where that can be."""
        most, ranked = self._options.max_batch_size, group.ranked
        fitting: list[tuple[float, int, Entry[T]]] = []
        rows = count = 0
        while len(fitting) < group.waiting and rows + group.first()[2].rows <= most:
            fitting.append(heappop(ranked))
            rows += fitting[-1][2].rows
            if rows in self._sizes:
                count = len(fitting)
        if count:
            for one in fitting[count:]:
                heappush(ranked, one)
            del fitting[count:]
        return fitting

    def _take(self, run: Sequence[tuple[float, int, Entry[T]]], now: float) -> Batch[T]:
        """They run now."""
        entries = [entry for _, _, entry in run]
        rows = length = 0
        for entry in entries:
            rows += entry.rows
            length = max(length, entry.length)
            self._leave(entry)
        self.idle -= 1
        return Batch(entries[0].key, entries, rows, now, length)


def _rank(group: _Group[Any]) -> tuple[float, int]:
    rank, number, _ = group.first()
    return rank, number


def _sweep(heap: list[tuple[float, int, Entry[Any]]]) -> None:
    heap[:] = [one for one in heap if one[2].waits]
    heapify(heap)


def too_late() -> HeadraceError:
    """The error for who cannot be run in time any more."""
    return HeadraceError(
        Code.QUEUE_TIMEOUT,
        "It could not be run in the time that it had; allow more, or send it when less waits.",
        retry_after_s=RETRY_S,
    )


def full(limit: int) -> HeadraceError:
    """The error for who finds the queue full, or gives way to another."""
    text = f"{limit} requests are waiting for this model already; try again shortly."
    return HeadraceError(Code.QUEUE_FULL, text, retry_after_s=RETRY_S)


def _wrong_size(rows: int, most: int) -> HeadraceError:
    text = f"The batch has {rows} rows, and this model takes 1 to {most} at once; send fewer."
    return HeadraceError(Code.INVALID_REQUEST, text)
