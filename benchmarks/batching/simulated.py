"""The batcher's decisions over simulated time: clients, and an engine whose runs cost so much and so much a row."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace.scheduling.batcher import Batch, Batcher, BatchOptions, BatchQueue, Entry

QUEUE = BatchQueue(limit=100_000, timeout_s=1e6)


class Engine(NamedTuple):
    """Seconds of a run, and of each of its rows."""

    run_s: float = 0.002
    row_s: float = 0.0006

    def took_s(self, rows: int) -> float:
        return self.run_s + rows * self.row_s

    def best(self, rows: int) -> float:
        """Rows a second, were all runs of so many."""
        return rows / self.took_s(rows)


class Load(NamedTuple):
    """``clients`` that each ask again ``think_s`` after their answer (exponential, beside a round trip of 0.2 ms); or
    without any, ``per_s`` requests by chance."""

    clients: int = 0
    think_s: float = 0.0
    per_s: float = 0.0


class Outcome(NamedTuple):
    """``per_s``: rows; waits from asking to the answer, in seconds."""

    per_s: float
    p50_s: float
    p99_s: float
    rows: float


class Waiting(Batcher[int]):
    """As most batchers do it: a run starts when it is full, or its first request has waited so long."""

    def _held_until(self, group: Any, now: float, *, some_stay: bool) -> float:
        full = group.rows >= self._options.max_batch_size
        first: float = group.first()[2].since
        return now if full else first + self._options.max_wait_ms / 1000.0


class Simulation:
    """``requests`` of them, the first tenth of which does not count."""

    def __init__(
        self,
        load: Load,
        engine: Engine,
        options: BatchOptions,
        requests: int,
        kind: Callable[[BatchOptions], Batcher[int]] = Batcher,
        seed: int = 1,
    ) -> None:
        self._load = load
        self._engine = engine
        self._batcher = kind(options)
        self._left = requests
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._took: list[tuple[float, float]] = []
        self._runs: list[int] = []

    def run(self) -> Outcome:
        load = self._load
        for _ in range(load.clients or 1):
            self._at(self._pause(), self._ask)
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
            self._decide(now)
        counted = self._took[len(self._took) // 10 :]
        took = sorted(s for _, s in counted)
        spent = counted[-1][0] - counted[0][0]
        return Outcome(
            len(counted) / spent,
            took[len(took) // 2],
            took[int(len(took) * 0.99)],
            sum(self._runs) / len(self._runs),
        )

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, happen))

    def _pause(self) -> float:
        load = self._load
        if not load.clients:
            return self._chance.expovariate(load.per_s)
        return 0.0002 + (self._chance.expovariate(1 / load.think_s) if load.think_s else 0.0)

    def _ask(self, now: float) -> None:
        if not self._left:
            return
        self._left -= 1
        self._batcher.add(Entry(0, None), now)
        if not self._load.clients:
            self._at(now + self._pause(), self._ask)

    def _decide(self, now: float) -> None:
        decision = self._batcher.decide(now)
        while decision.batch is not None:
            batch = decision.batch
            took_s = self._engine.took_s(batch.rows) * self._chance.uniform(0.95, 1.05)
            self._at(now + took_s, lambda when, batch=batch: self._ended(batch, when))  # type: ignore[misc]
            decision = self._batcher.decide(now)
        if decision.look_at < now + 1.0:
            self._at(decision.look_at, lambda when: None)

    def _ended(self, batch: Batch[int], now: float) -> None:
        self._batcher.ended(batch, now)
        self._runs.append(batch.rows)
        for entry in batch.entries:
            self._took.append((now, now - entry.since))
            if self._load.clients:
                self._at(now + self._pause(), self._ask)


def options(size: int, wait_ms: float) -> BatchOptions:
    return BatchOptions(size, wait_ms, queue=QUEUE)
