"""An hour of one tenant that asks for more than its limit of tokens allows, simulated: how much it gets.

Whoever is charged after the answer is let in as long as nothing of what is under way has been charged yet.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from typing import NamedTuple

from headrace.admission.day import DayBudgets
from headrace.admission.limiter import Limiter, Rules
from headrace.admission.plan import Reservation
from headrace.domain.errors import HeadraceError
from headrace.domain.limits import Limits

TOKENS_PER_MINUTE = 60_000
TIMES = 5
HOUR_S = 3600
PROMPT, MAX_TOKENS, MEAN_TOKENS = 300, 1000, 300
TOKENS_PER_S = 50.0
SETTLED_S = 120
"""After so long the full bucket of the beginning is used up."""


class Request(NamedTuple):
    at: float
    answer: int
    """Output tokens, were it not cut."""


class Charged(NamedTuple):
    """What an hour came to. ``worst``: the most tokens that were computed in one minute, but for the first two."""

    tokens: float
    worst: float
    begun: int
    cut: int


def arrivals(seed: int) -> Iterator[Request]:
    chance = random.Random(seed)
    per_s = TIMES * TOKENS_PER_MINUTE / 60 / (PROMPT + MEAN_TOKENS)
    now = 0.0
    while (now := now + chance.expovariate(per_s)) < HOUR_S:
        yield Request(now, min(MAX_TOKENS, 1 + int(chance.expovariate(1 / MEAN_TOKENS))))


class CounterAfter:
    """A counter of each minute: who comes is let in while it is below the limit; charged at the end."""

    def __init__(self) -> None:
        self._spent: dict[int, int] = {}

    def enter(self, request: Request, now: float) -> int | None:
        below = self._spent.get(int(now / 60), 0) < TOKENS_PER_MINUTE
        return request.answer if below else None

    def leave(self, request: Request, used: int, now: float) -> None:
        minute = int(now / 60)
        self._spent[minute] = self._spent.get(minute, 0) + used


class BucketAfter:
    """A token bucket: who comes is let in while there is anything in it; charged at the end, it may owe."""

    def __init__(self) -> None:
        self._level, self._at = float(TOKENS_PER_MINUTE), 0.0

    def enter(self, request: Request, now: float) -> int | None:
        refilled = self._level + (now - self._at) * TOKENS_PER_MINUTE / 60
        self._level, self._at = min(TOKENS_PER_MINUTE, refilled), now
        return request.answer if self._level > 0 else None

    def leave(self, request: Request, used: int, now: float) -> None:
        self.enter(request, now)
        self._level -= used


class Reserved:
    """The server's own limiter."""

    def __init__(self) -> None:
        self._limiter = Limiter(DayBudgets())
        limits = Limits(tokens_per_minute=TOKENS_PER_MINUTE)
        self._limiter.replace(Rules(tenants={"a": limits}))
        self._taken: dict[Request, Reservation] = {}

    def enter(self, request: Request, now: float) -> int | None:
        plan = self._limiter.plan("a", "", "m", now)
        assert plan is not None
        try:
            taken = plan.reserve("", None, PROMPT, MAX_TOKENS, 1, now, now)
        except HeadraceError:
            return None
        self._taken[request] = taken
        return min(request.answer, taken.output)

    def leave(self, request: Request, used: int, now: float) -> None:
        taken = self._taken.pop(request)
        if taken.cap is None:
            taken.plan.estimates.learn_answer(used - PROMPT, 1, 1.0)
        taken.settle(used, now)


def simulate(limit: CounterAfter | BucketAfter | Reserved, seed: int) -> Charged:
    ends: list[tuple[float, Request, int]] = []
    seconds = [0.0] * (2 * HOUR_S)
    begun = cut = 0
    for request in arrivals(seed):
        while ends and ends[0][0] <= request.at:
            ended_at, earlier, used = heapq.heappop(ends)
            limit.leave(earlier, used, ended_at)
        said = limit.enter(request, request.at)
        if said is None:
            continue
        begun += 1
        cut += said < request.answer
        ends_at = request.at + said / TOKENS_PER_S
        heapq.heappush(ends, (ends_at, request, PROMPT + said))
        seconds[int(request.at)] += PROMPT
        for number in range(int(request.at), int(ends_at) + 1):
            shared = min(number + 1, ends_at) - max(number, request.at)
            seconds[number] += shared * TOKENS_PER_S
    worst = max(sum(seconds[at : at + 60]) for at in range(SETTLED_S, HOUR_S - 60))
    return Charged(sum(seconds), worst, begun, cut)
