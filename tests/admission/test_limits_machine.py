"""A walk over everything that can happen to limits: who comes, ends, is cancelled, restarts, with any clock."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from math import inf, nan
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from headrace.admission.day import DAY_S, DayBudgets
from headrace.admission.limiter import Limiter, Rules
from headrace.admission.plan import Reservation
from headrace.admission.usage_journal import UsageJournal
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.limits import Limits

START = 20_000 * DAY_S + 86_300
REFUSED = (Code.RATE_LIMITED, Code.CONCURRENCY_LIMIT, Code.REQUEST_TOO_LARGE)
WHO = st.sampled_from([("a", "k"), ("a", ""), ("b", ""), ("c", "")])
MODELS = st.sampled_from(["m", "n"])


def some_limits() -> st.SearchStrategy[Limits]:
    return st.builds(
        Limits,
        requests_per_minute=st.none() | st.integers(2, 30),
        tokens_per_minute=st.none() | st.integers(50, 2000),
        tokens_per_day=st.none() | st.integers(2000, 8000),
        concurrent=st.none() | st.integers(1, 5),
        burst_s=st.sampled_from([60.0, 30.0, 120.0]),
    )


class Ledger:
    """What one limit per minute has let through: the most, of all times that end now, beyond what the refill of
    that time allows."""

    def __init__(self, capacity: float, per_s: float, now: float) -> None:
        self.capacity = capacity
        self.per_s = per_s
        self.most = 0.0
        self.overdrawn = 0
        self._at = now

    def note(self, amount: float, clock: float) -> None:
        self.most = max(0.0, self.most - self.per_s * (clock - self._at)) + amount
        self._at = clock


class Guest:
    """A reservation, and the accounts it counts for."""

    def __init__(self, reservation: Reservation, accounts: list[str], day: int) -> None:
        self.reservation = reservation
        self.accounts = accounts
        self.day = day
        self.over = False


class LimitsMachine(RuleBasedStateMachine):
    guests = Bundle("guests")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.wall = START
        self.clock = 0.0
        """Time that has passed, by a clock that never goes back."""
        self.count = 0
        self.open: list[Guest] = []
        self.spent: dict[tuple[str, int], int] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(
        tenants=st.dictionaries(st.sampled_from(["a", "b"]), some_limits(), max_size=2),
        keys=st.dictionaries(st.just("k"), some_limits(), max_size=1),
        models=st.dictionaries(st.sampled_from(["m", "n"]), some_limits(), max_size=2),
        both=st.dictionaries(st.just(("a", "m")), some_limits(), max_size=1),
    )
    def begin(
        self,
        tenants: Mapping[str, Limits],
        keys: Mapping[str, Limits],
        models: Mapping[str, Limits],
        both: Mapping[tuple[str, str], Limits],
    ) -> None:
        self.rules = Rules(keys, tenants, models, both)
        self.limits = {
            **{f"tenant:{name}": one for name, one in tenants.items()},
            **{f"key:{name}": one for name, one in keys.items()},
            **{f"model:{name}": one for name, one in models.items()},
            **{f"tenant:{name} model:{model}": one for (name, model), one in both.items()},
        }
        self.start()

    def start(self) -> None:
        self.days = DayBudgets(UsageJournal(self.folder / "usage", file_bytes=2000))
        self.days.load(self.wall)
        self.limiter = Limiter(self.days)
        self.limiter.replace(self.rules)
        self.ledgers: dict[tuple[str, str], Ledger] = {}
        for account, limits in self.limits.items():
            for name in ("requests_per_minute", "tokens_per_minute"):
                per_minute = getattr(limits, name)
                if per_minute is not None:
                    capacity = float(int(limits.burst(per_minute)))
                    self.ledgers[account, name] = Ledger(capacity, per_minute / 60, self.clock)

    def accounts(self, tenant: str, key_id: str, model: str) -> list[str]:
        named = (
            f"key:{key_id}",
            f"tenant:{tenant} model:{model}",
            f"tenant:{tenant}",
            f"model:{model}",
        )
        return [name for name in named if name in self.limits]

    def note(self, accounts: list[str], name: str, amount: float) -> None:
        for account in accounts:
            if (account, name) in self.ledgers:
                self.ledgers[account, name].note(amount, self.clock)

    def spend(self, guest: Guest, amount: int) -> None:
        for account in guest.accounts:
            if self.limits[account].tokens_per_day is not None:
                at = account, guest.day
                self.spent[at] = self.spent.get(at, 0) + amount

    @rule(
        target=guests,
        who=WHO,
        model=MODELS,
        prompt=st.integers(0, 400),
        output=st.integers(1, 600),
        choices=st.integers(1, 3),
    )
    def arrive(
        self, who: tuple[str, str], model: str, prompt: int, output: int, choices: int
    ) -> Iterator[Guest] | Guest:
        plan = self.limiter.plan(*who, model, self.now)
        accounts = self.accounts(*who, model)
        if plan is None:
            assert all(
                self.limits[one] == Limits(burst_s=self.limits[one].burst_s) for one in accounts
            )
            return multiple()
        self.count += 1
        id = f"gen_{self.count}"
        try:
            taken = plan.reserve(id, None, prompt, output, choices, self.now, self.wall)
        except HeadraceError as error:
            check_refusal(error)
            return multiple()
        assert taken.prompt == prompt
        assert choices <= taken.output <= output * choices
        assert (taken.cap is None) is (taken.output == output * choices)
        guest = Guest(taken, accounts, int(self.wall // DAY_S))
        self.open.append(guest)
        self.note(accounts, "requests_per_minute", 1)
        self.note(accounts, "tokens_per_minute", taken.prompt + taken.output)
        self.spend(guest, taken.prompt + taken.output)
        return guest

    @rule(guest=consumes(guests), share=st.floats(0, 1))
    def end(self, guest: Guest, share: float) -> None:
        """By itself, cancelled, or failed by its engine: after any part of what it might have used."""
        self.settle(guest, int(share * (guest.reservation.prompt + guest.reservation.output)))

    @rule(guest=consumes(guests), more=st.integers(1, 100))
    def end_with_more_than_was_reserved(self, guest: Guest, more: int) -> None:
        """Its prompt was longer than it looked."""
        self.settle(guest, guest.reservation.prompt + guest.reservation.output + more)

    def settle(self, guest: Guest, used: int) -> None:
        reservation = guest.reservation
        back = reservation.prompt + reservation.output - used
        reservation.settle(used, self.now)
        reservation.settle(used + 5, self.now)  # whoever says it again changes nothing
        self.open.remove(guest)
        for account in guest.accounts:
            if back < 0 and (account, "tokens_per_minute") in self.ledgers:
                self.ledgers[account, "tokens_per_minute"].overdrawn -= back
        self.note(guest.accounts, "tokens_per_minute", -back)
        self.spend(guest, -back)

    @rule(guest=guests, tokens=st.integers(1, 100))
    def add_prompt(self, guest: Guest, tokens: int) -> None:
        if guest not in self.open:
            return
        try:
            guest.reservation.add_prompt(tokens, self.now, self.wall)
        except HeadraceError as error:
            check_refusal(error)
            return
        self.note(guest.accounts, "tokens_per_minute", tokens)
        # A further part counts for the day of the first.
        self.spend(guest, tokens)

    @rule(seconds=st.floats(0, 90))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.clock += seconds

    @rule(seconds=st.floats(0, 10_000))
    def set_the_clocks_back(self, seconds: float) -> None:
        self.now -= seconds
        self.wall = max(START, self.wall - seconds)

    @rule(who=WHO, model=MODELS, odd=st.sampled_from([nan, inf, -inf]))
    def ask_at_no_time(self, who: tuple[str, str], model: str, odd: float) -> None:
        plan = self.limiter.plan(*who, model, self.now)
        if plan is not None:
            plan.allowance(odd, odd)

    @rule()
    def crash(self) -> None:
        """``kill -9``; all that was running goes on."""
        before = {id: (one.prompt, one.output) for id, one in self.days.open.items()}
        self.start()
        assert {id: (one.prompt, one.output) for id, one in self.days.open.items()} == before
        for guest in self.open:
            old = guest.reservation
            who, model = guest_of(guest.accounts)
            plan = self.limiter.plan(*who, model, self.now)
            assert plan is not None
            known = self.days.open.get(old.id)
            if known is not None:
                assert (known.prompt, known.output) == (old.prompt, old.output)
            guest.reservation = plan.resume(old.id, old.prompt, old.output, self.now, self.wall)
            for account in guest.accounts:
                at = account, "tokens_per_minute"
                if at in self.ledgers:  # they go on whatever is left
                    self.ledgers[at].overdrawn += old.prompt + old.output
            self.note(guest.accounts, "tokens_per_minute", old.prompt + old.output)

    @invariant()
    def no_time_lets_more_through_than_the_bucket_and_its_refill(self) -> None:
        for ledger in getattr(self, "ledgers", {}).values():
            assert ledger.most <= ledger.capacity + ledger.overdrawn + 1e-6

    @invariant()
    def days_are_exact(self) -> None:
        for account, limits in getattr(self, "limits", {}).items():
            if limits.tokens_per_day is None:
                continue
            budget = self.days.budget(account)
            for day, spent in budget.spent.items():
                assert spent == self.spent.get((account, day), 0)
            today = int(self.wall // DAY_S)
            taken = budget.capacity - budget.left(self.now, self.wall)
            assert taken == self.spent.get((account, today), 0)

    @invariant()
    def gates_count_who_is_in(self) -> None:
        for account, limits in getattr(self, "limits", {}).items():
            if limits.concurrent is not None:
                inside = sum(account in guest.accounts for guest in self.open)
                gate = self.limiter._gates.get(account)
                assert (gate.running if gate is not None else 0) == inside
                assert inside <= limits.concurrent


def check_refusal(error: HeadraceError) -> None:
    """It is one of those that a limit has, and says when to come again unless that is of no use."""
    assert error.code in REFUSED
    assert (error.retry_after_s is None) is (error.code is Code.REQUEST_TOO_LARGE)


def guest_of(accounts: list[str]) -> tuple[tuple[str, str], str]:
    """Somebody whom just these accounts hold for."""
    text = " ".join(accounts)
    tenant = next((name for name in "ab" if f"tenant:{name}" in text), "c")
    key_id = "k" if "key:k" in text else ""
    model = next((name for name in "mn" if f"model:{name}" in text), "other")
    return (tenant, key_id), model


def test_limits_hold_whatever_happens() -> None:
    run_state_machine_as_test(
        LimitsMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
