"""Least attained service, as the router of llm-d has it (program-aware fairness, strategy ``las``): the peer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from headrace.scheduling.policy import Ticket

SERVICE_WEIGHT = 0.8
WAIT_WEIGHT = 0.2
HALF_LIFE_S = 60.0


class _Program:
    def __init__(self, now: float) -> None:
        self.waiting: deque[Ticket] = deque()
        self.service = 0.0
        self.since = now

    def attained(self, now: float) -> float:
        """Weighted tokens of its finished requests; half of them are forgotten in every half-life."""
        self.service *= 0.5 ** ((now - self.since) / HALF_LIFE_S)
        self.since = now
        return self.service


class LeastAttainedService:
    """The tenant with the best score is served, its requests in order of arrival. The score: 0.8 times how
    little service it had + 0.2 times how long its first one has waited, each scaled to the range among the
    waiting tenants. A request is charged when it ends: prompt + 2 times output."""

    name = "las"

    def __init__(self) -> None:
        self._programs: dict[str, _Program] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, ticket: Ticket, now: float) -> None:
        program = self._programs.setdefault(ticket.terms.tenant, _Program(now))
        program.waiting.append(ticket)
        self._waiting += 1

    def peek(self, now: float) -> Ticket | None:
        program = self._best(now)
        return program.waiting[0] if program else None

    def take(self, now: float) -> Ticket | None:
        program = self._best(now)
        if program is None:
            return None
        self._waiting -= 1
        return program.waiting.popleft()

    def produced(self, ticket: Ticket, tokens: int, now: float) -> None:
        ticket.produced += tokens

    def ended(self, ticket: Ticket, now: float) -> None:
        program = self._programs[ticket.terms.tenant]
        program.service = program.attained(now) + ticket.prompt_tokens + 2 * ticket.produced

    def began(self, ticket: Ticket, now: float) -> None:
        """Nothing is charged yet."""

    def first_token(self, ticket: Ticket, now: float) -> None:
        """Nothing depends on it."""

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        """It has no such thing."""
        return None

    def _best(self, now: float) -> _Program | None:
        programs = [program for program in self._programs.values() if program.waiting]
        if not programs:
            return None
        services = [program.attained(now) for program in programs]
        waits = [now - program.waiting[0].arrived_at for program in programs]
        scores = [
            SERVICE_WEIGHT * (1 - service) + WAIT_WEIGHT * wait
            for service, wait in zip(_scaled(services), _scaled(waits), strict=True)
        ]
        return programs[scores.index(max(scores))]


def _scaled(values: Sequence[float]) -> list[float]:
    """Each from 0 (the least) to 1 (the most); 0 where all are equal."""
    least, most = min(values), max(values)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]
