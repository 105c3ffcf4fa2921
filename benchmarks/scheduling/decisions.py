"""``python -m benchmarks.scheduling.decisions``: decisions a second of every policy, in one thread.

1,000 tenants with 100,000 requests waiting, in three classes. A decision takes the next one and adds another;
``with run`` also says that it began, had its first token, produced output in three lumps and ended: all that a
policy hears of a request. By CPU time, and the best of several rounds, as others may use the machine.
"""

from __future__ import annotations

import argparse
import gc
import time
from random import Random

from benchmarks import table
from headrace.scheduling.policies import POLICIES, policy
from headrace.scheduling.policy import Policy, Terms, Ticket

TENANTS = 1_000
WAITING = 100_000
DECISIONS = 20_000
RATE = 100.0
"""Requests a second by the clock that the policies see."""


class Crowd:
    """Requests without end: a few tenants send most of them."""

    def __init__(self) -> None:
        random = Random(1)
        self._random = random
        self._terms = [
            Terms(
                str(number),
                random.choice((1.0, 2.0)),
                random.choice(("interactive", "standard", "batch")),
                random.choice((None, 5.0, 60.0)),
                sheddable=number % 4 == 0,
            )
            for number in range(TENANTS)
        ]
        self._shares = [1 / (number + 1) for number in range(TENANTS)]
        self.now = 0.0

    def tickets(self, count: int) -> list[Ticket]:
        owners = self._random.choices(self._terms, self._shares, k=count)
        return [self._ticket(owner) for owner in owners]

    def _ticket(self, owner: Terms) -> Ticket:
        self.now += 1 / RATE
        prompt = self._random.randrange(10, 4000)
        return Ticket(str(self.now), owner, self.now, prompt, output_tokens=200)


def decide(one: Policy, crowd: Crowd) -> float:
    """Decisions a second of CPU time."""
    tickets = crowd.tickets(DECISIONS)
    began = time.thread_time()
    for ticket in tickets:
        now = ticket.arrived_at
        one.take(now)
        one.add(ticket, now)
    return DECISIONS / (time.thread_time() - began)


def run(one: Policy, crowd: Crowd) -> float:
    """Requests a second of CPU time, from joining to their end."""
    tickets = crowd.tickets(DECISIONS)
    began = time.thread_time()
    for ticket in tickets:
        now = ticket.arrived_at
        taken = one.take(now)
        assert taken is not None
        one.began(taken, now)
        one.first_token(taken, now + 0.2)
        for _ in range(3):
            one.produced(taken, 66, now + 1)
        one.ended(taken, now + 2)
        one.add(ticket, now)
    return DECISIONS / (time.thread_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in POLICIES:
        crowd, one = Crowd(), policy(name)
        for ticket in crowd.tickets(WAITING):
            one.add(ticket, ticket.arrived_at)
        gc.collect()
        decisions = max(decide(one, crowd) for _ in range(args.rounds))
        requests = max(run(one, crowd) for _ in range(args.rounds))
        rows.append((name, decisions, requests, 1e6 / requests))
    title = f"Decisions a second, {TENANTS:,} tenants, {WAITING:,} waiting"
    table.show(title, ("policy", "take + add", "with run", "µs a request"), rows, json_too=rows)


if __name__ == "__main__":
    main()
