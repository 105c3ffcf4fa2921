"""A plan, all limits that hold for a request, and the reservations made on it.

Tokens are taken when a request enters: its prompt, and the output it may have at most. What it did not use comes back
when it ends. Charged only at the end, everybody who comes while answers are under way would still find the budget
full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import NoReturn

import msgspec

from headrace.admission.bucket import Bucket
from headrace.admission.day import DayBudget, DayBudgets
from headrace.admission.estimates import Estimates, Size
from headrace.admission.gate import Gate
from headrace.admission.pace import Pace
from headrace.domain.allowance import Allowance, Left
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Cap

Budget = Bucket | DayBudget
Wait = tuple[float, Budget, float]
"""Seconds until a budget has so much."""


class Plan:
    """``tokens``: the budgets that tokens are taken from, those of a day too. ``pace``: tokens a second of one
    answer. Nothing is taken unless all have enough."""

    __slots__ = (
        "_buckets",
        "_budgets",
        "_days",
        "_gates",
        "_requests",
        "estimates",
        "pace",
        "tokens",
    )

    def __init__(
        self,
        requests: tuple[Bucket, ...],
        buckets: tuple[Bucket, ...],
        days: tuple[DayBudget, ...],
        gates: tuple[Gate, ...],
        pace: float | None,
        estimates: Estimates,
        budgets: DayBudgets,
    ) -> None:
        self._requests = requests
        self._buckets = buckets
        self._days = days
        self._gates = gates
        self._budgets = budgets
        self.tokens: tuple[Budget, ...] = (*buckets, *days)
        self.pace = pace
        self.estimates = estimates

    def reserve(
        self,
        id: str,
        size: Size | None,
        prompt: int,
        output: int,
        choices: int,
        now: float,
        wall: float,
    ) -> Reservation:
        """Let a request in. ``output``: tokens that each choice may have; where the budgets have less, but enough
        for an answer of the usual length, they give what they have. Raises ``RATE_LIMITED``, ``CONCURRENCY_LIMIT``,
        and ``REQUEST_TOO_LARGE`` for one that no waiting helps."""
        for gate in self._gates:
            if gate.running >= gate.limit:
                self._refuse_at(gate, now, wall)
        # This and what ends it are on the way of every limited request: loops, not calls.
        lacking = False
        for bucket in self._requests:
            if bucket.left(now, wall) < 1.0:
                lacking = True
        cap = None
        total = output * choices
        most: float = prompt + total
        tightest = None
        for budget in self.tokens:
            left = budget.left(now, wall)
            if left < most:
                most, tightest = left, budget
        if lacking or tightest is not None:
            least = min(output, self.estimates.likely) * choices
            self._check(1, prompt, least, choices, now, wall)
        if tightest is not None:
            each = max(1, int(most - prompt) // choices)
            cap = Cap(each, tightest.name)
            total = each * choices
        if self._days:
            self._budgets.reserve(id, self._days, prompt, total)
        for bucket in self._buckets:
            bucket.level -= prompt + total
        for bucket in self._requests:
            bucket.level -= 1.0
        for gate in self._gates:
            gate.running += 1
        return Reservation(self, id, size, prompt, total, now, cap)

    def resume(self, id: str, prompt: int, output: int, now: float, wall: float) -> Reservation:
        """Let in again what was let in before the process died, whatever is left. What its days were charged
        then, they still are."""
        if self._days and id not in self._budgets.open:
            for day in self._days:
                day.left(now, wall)
            self._budgets.reserve(id, self._days, prompt, output)
        for bucket in self._buckets:
            bucket.level -= prompt + output
        for gate in self._gates:
            gate.running += 1
        return Reservation(self, id, None, prompt, output, now)

    def take_request(self, now: float, wall: float) -> None:
        """Let a request in that computes no answer: it takes one of the requests and no tokens. Raises
        ``RATE_LIMITED``."""
        self._refuse_until(self._waits_for_requests(1, now, wall), now, wall)
        for bucket in self._requests:
            bucket.level -= 1.0

    def allowance(self, now: float, wall: float) -> Allowance:
        """What is left, of the tightest of the limits on requests and of those on tokens."""
        return Allowance(_tightest(self._requests, now, wall), _tightest(self.tokens, now, wall))

    def add(self, id: str, tokens: int, now: float, wall: float) -> None:
        """Take so many tokens more for a reservation. Raises as :meth:`reserve`."""
        self._check(0, tokens, 0, 0, now, wall)
        if self._days:
            self._budgets.reserve(id, self._days, tokens, 0)
        for bucket in self._buckets:
            bucket.level -= tokens

    def give_back(self, reservation: Reservation, used: int, now: float) -> None:
        """A reservation is over: so many tokens it really was."""
        if self._buckets:
            back = reservation.prompt + reservation.output - used
            for bucket in self._buckets:
                bucket.give_back(back)
        if reservation.id in self._budgets.open:
            self._budgets.settle(reservation.id, used)
        for gate in self._gates:
            gate.leave(now - reservation.began)

    def _check(
        self, requests: int, prompt: int, least: int, choices: int, now: float, wall: float
    ) -> None:
        """Raise if the budgets lack the least that is worth to begin with. One that can never have that must be
        full."""
        for budget in self.tokens:
            if budget.capacity < prompt + choices:
                raise HeadraceError(
                    Code.REQUEST_TOO_LARGE,
                    f"{_named(budget)} never lets more than {budget.capacity:g} tokens through at once; this is about"
                    f" {prompt} without its answer. Make it shorter.",
                    allowance=self.allowance(now, wall),
                )
        need = float(prompt + least)
        waits = self._waits_for_requests(requests, now, wall)
        for one in self.tokens:
            amount = min(need, one.capacity)
            waits.append((one.wait_s(amount, now, wall), one, amount))
        self._refuse_until(waits, now, wall)

    def _waits_for_requests(self, count: int, now: float, wall: float) -> list[Wait]:
        return [(one.wait_s(count, now, wall), one, count) for one in self._requests]

    def _refuse_until(self, waits: Sequence[Wait], now: float, wall: float) -> None:
        """Raise if one of the budgets has to be waited for."""
        wait_s, longest, amount = max(waits, key=itemgetter(0), default=(0.0, None, 0.0))
        if longest is not None and wait_s > 0.0:
            left = int(longest.left(now, wall))
            state = f"has {left} left, and this may need {amount:g}" if left > 0 else "is used up"
            raise HeadraceError(
                Code.RATE_LIMITED,
                f"{_named(longest)} ({longest.capacity:g}) {state}; there is enough for this in {_seconds(wait_s)} s.",
                retry_after_s=wait_s,
                allowance=self.allowance(now, wall),
            )

    def _refuse_at(self, gate: Gate, now: float, wall: float) -> NoReturn:
        running = (
            "1 generation runs or waits"
            if gate.limit == 1
            else f"{gate.limit} generations run or wait"
        )
        raise HeadraceError(
            Code.CONCURRENCY_LIMIT,
            f"{running} for {gate.whose} already; try again when one has ended.",
            retry_after_s=gate.wait_s(),
            allowance=self.allowance(now, wall),
        )


class Reservation(msgspec.Struct, eq=False, gc=False):
    """What a request may use: ``prompt`` tokens, about, and ``output`` tokens in all choices. ``cap``: set where
    that is less than was asked for. ``pace``: once it runs, where it has one. ``size``: None if nothing is learned of
    its prompt. ``began``: monotonic seconds."""

    plan: Plan
    id: str
    size: Size | None
    prompt: int
    output: int
    began: float
    cap: Cap | None = None
    pace: Pace | None = None
    settled: bool = False

    def allowance(self, now: float, wall: float) -> Allowance:
        """What its caller has left now."""
        return self.plan.allowance(now, wall)

    def add_prompt(self, tokens: int, now: float, wall: float) -> None:
        """A message was added to it. Raises ``RATE_LIMITED`` and ``REQUEST_TOO_LARGE``."""
        if not self.settled:
            self.plan.add(self.id, tokens, now, wall)
            self.prompt += tokens

    def settle(self, used: int, now: float) -> None:
        """It is over, and has used so many tokens; what was reserved beyond that comes back. Once: later calls
        do nothing."""
        if not self.settled:
            self.settled = True
            self.plan.give_back(self, used if used > 0 else 0, now)


def _tightest(budgets: Sequence[Budget], now: float, wall: float) -> Left | None:
    found = None
    least = 0.0
    for budget in budgets:
        left = budget.left(now, wall)
        if found is None or left < least:
            found, least = budget, left
    if found is None:
        return None
    reset_s = found.wait_s(found.capacity, now, wall)
    return Left(int(found.capacity), max(0, int(least)), reset_s)


def _seconds(wait_s: float) -> str:
    """Never in powers of ten."""
    return f"{wait_s:.3g}" if wait_s < 100.0 else f"{math.ceil(wait_s)}"


def _named(budget: Budget) -> str:
    return f"{budget.name.partition('.')[2]} of {budget.whose}"
