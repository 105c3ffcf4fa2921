"""``python -m benchmarks.scheduling.cost``: µs of CPU that admission and scheduling take for a request, in one thread.

With the limiter, the tickets and the queue that the server has: a request is let in (reserved), waits among others, is
first, runs, has its first token and its end (settled). While nobody waits there are no tickets and no queue. The best
of several rounds by CPU time, as others may use the machine.
"""

from __future__ import annotations

import argparse
import gc
import time
from random import Random
from typing import Any

import msgspec

from benchmarks import table
from headrace.admission.day import DayBudgets
from headrace.admission.estimates import Estimates
from headrace.admission.limiter import Limiter, Rules
from headrace.domain.limits import Limits
from headrace.domain.request import Caller, Message, Request, Sampling
from headrace.domain.tenant import Level, Tenant
from headrace.scheduling.policies import POLICIES, policy
from headrace.scheduling.queue import Queue
from headrace.tickets import Tickets

REQUESTS = 20_000
LOT = 100
"""Requests that are made, untimed, before they come: a server has just read what it lets in, and keeps nothing of
what has ended."""
RATE = 100.0
"""Requests a second by the clock that the policies see."""
PLENTY = 10**12
LEVELS: tuple[Level, ...] = ("interactive", "standard", "batch")


class Asked(msgspec.Struct):
    """What tickets are made of."""

    id: str
    caller: Caller
    request: Request
    admitted_at: float
    durable: bool = True
    last_token_at: float = 0.0
    ticket: Any = None


class House:
    """The rooms, and so many requests that wait."""

    def __init__(self, name: str, tenants: int, waiting: int) -> None:
        limits = Limits(requests_per_minute=PLENTY, tokens_per_minute=PLENTY, concurrent=PLENTY)
        known = {
            str(number): Tenant(name=str(number), level=LEVELS[number % 3], ttft_ms=10_000)
            for number in range(tenants)
        }
        self._limiter = Limiter(DayBudgets())
        self._limiter.replace(Rules(tenants=dict.fromkeys(known, limits)))
        self._tickets = Tickets(known.__getitem__)
        self._estimates = Estimates()
        self._queue: Queue[Any] = Queue(policy(name), 2 * waiting + 1, 3600.0)
        self._random = Random(1)
        self._made = 0
        self._callers = [Caller(name) for name in known]
        self._now = 0.0
        self._waits = waiting > 0
        for _ in range(waiting):
            self._push(self._request())

    def _request(self) -> Asked:
        self._now += 1 / RATE
        self._made += 1
        text = "x" * self._random.randrange(40, 16_000)
        request = Request("m", "chat", (Message("user", text),), sampling=Sampling(max_tokens=200))
        return Asked(f"gen_{self._made}", self._random.choice(self._callers), request, self._now)

    def _push(self, asked: Asked) -> None:
        ticket = self._tickets.give(asked, self._estimates)  # type: ignore[arg-type]
        self._queue.push(asked, ticket, asked.admitted_at)

    def run(self, count: int) -> float:
        """µs of CPU a request."""
        lots = count // LOT
        return sum(self._lot([self._request() for _ in range(LOT)]) for _ in range(lots)) / lots

    def _lot(self, requests: list[Asked]) -> float:
        queue, deciding = self._queue, self._queue.policy
        wall = time.time()
        began = time.thread_time()
        for asked in requests:
            now = asked.admitted_at
            plan = self._limiter.plan(asked.caller.tenant, "", "m", now)
            assert plan is not None
            reservation = plan.reserve(asked.id, None, 200, 200, 1, now, wall)
            if self._waits:
                self._push(asked)
                first = queue.first(now)
                assert first is not None
                queue.serve(first, now)
                ticket = first.ticket
                deciding.began(ticket, now)
                deciding.first_token(ticket, now + 0.2)
                deciding.produced(ticket, 199, now + 1)
                deciding.ended(ticket, now + 2)
            reservation.settle(400, now)
        return (time.thread_time() - began) / len(requests) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in args.policies.split(","):
        figures = []
        for tenants, waiting in ((10, 0), (2, 10), (10, 100), (100, 1000)):
            house = House(name, tenants, waiting)
            gc.collect()
            gc.freeze()
            figures.append(min(house.run(REQUESTS) for _ in range(args.rounds)))
            gc.unfreeze()
        rows.append((name, *figures))
    head = ("policy", "nobody waits", "10 wait", "100 wait", "1,000 wait")
    table.show("Admission and scheduling, µs of CPU a request", head, rows, json_too=rows)


if __name__ == "__main__":
    main()
