"""What was charged too much comes back, is found in the right order at once, and is credit for nobody."""

from __future__ import annotations

from math import isfinite
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scheduling.load import Slots

from headrace.scheduling.fair_headroom import HEADROOM
from headrace.scheduling.line import Account, Line
from headrace.scheduling.policies import policy
from headrace.scheduling.policy import Policy, Terms, Ticket

SHARING: dict[str, dict[str, float]] = {"fair": {}, "fair-headroom": {"headroom": HEADROOM}}
each = pytest.mark.parametrize("name", list(SHARING))
A, B = Terms("a", ttft_s=3000.0), Terms("b", ttft_s=3000.0)


def begun(one: Policy, id: str, terms: Terms, prompt: int, cached: int = 0) -> Ticket:
    """One that runs."""
    ticket = Ticket(id, terms, 0.0, prompt, cached)
    one.began(ticket, 0.0)
    return ticket


def both_wait(one: Policy) -> None:
    for terms in (A, B):
        one.add(Ticket(f"{terms.tenant}0", terms), 0.0)


def next_of(one: Policy) -> str:
    ticket = one.peek(0.0)
    assert ticket is not None
    return ticket.terms.tenant


@each
def test_who_had_its_prompt_in_a_cache_is_next_as_soon_as_that_is_known(name: str) -> None:
    one = policy(name)
    both_wait(one)
    first = begun(one, "a1", A, 10_000)
    begun(one, "b1", B, 5_000)
    assert next_of(one) == "b"
    one.settled(first, 10_000, 9_900)
    assert next_of(one) == "a"
    one.settled(first, 10_000, 9_900)
    one.settled(first, 4_900, 0)  # longer than was paid for
    assert next_of(one) == "a"
    one.settled(first, 5_100, 0)
    assert next_of(one) == "b"


@each
def test_a_prompt_that_was_expected_in_a_cache_and_was_not_is_charged(name: str) -> None:
    one = policy(name)
    both_wait(one)
    first = begun(one, "a1", A, 10_000, 9_900)
    begun(one, "b1", B, 5_000)
    assert next_of(one) == "a"
    one.settled(first, 10_000, 0)
    assert next_of(one) == "b"


@each
def test_what_began_twice_keeps_its_charge(name: str) -> None:
    """Its second run finds in the cache what the first one computed."""
    one = policy(name)
    both_wait(one)
    first = begun(one, "a1", A, 10_000)
    one.ended(first, 0.0)
    one.began(first, 0.0)
    begun(one, "b1", B, 5_000)
    one.settled(first, 10_000, 10_000)
    assert next_of(one) == "b"


@each
def test_what_did_not_begin_has_paid_nothing_and_gets_nothing_back(name: str) -> None:
    one = policy(name)
    waits = Ticket("a1", A, 0.0, 10_000)
    one.add(waits, 0.0)
    one.settled(waits, 10_000, 10_000)
    assert waits.prompt_tokens == 10_000
    assert waits.cached_tokens == 0


@each
def test_a_refund_is_no_credit_for_who_was_idle(name: str) -> None:
    """It was lifted to the others when it came back: the charge was forgiven then, and is not paid out now."""
    one = policy(name)
    first = begun(one, "a1", A, 10_000)
    one.add(Ticket("b0", B), 0.0)
    begun(one, "b1", B, 50_000)
    one.add(Ticket("a2", A), 0.0)
    tenant = first.account
    before = tenant.counter
    assert before == 50_000
    one.settled(first, 10_000, 10_000)
    assert tenant.counter == before
    assert tenant.level.counter >= 50_000 / tenant.level.weight


def test_a_line_is_in_order_whatever_rises_and_falls() -> None:
    random = Random(3)
    line: Line[Account] = Line()
    accounts = [Account(1.0) for _ in range(40)]
    for _ in range(20_000):
        account = random.choice(accounts)
        turn = random.randrange(4)
        if turn == 0:
            if not account.waiting:
                line.join(account)
            account.waiting += 1
        elif turn == 1 and account.waiting:
            account.waiting -= 1
            line.floor = max(line.floor, account.counter)
        elif turn == 2:
            account.counter += random.randrange(100)
        else:
            before = account.counter
            line.refund(account, random.randrange(100))
            assert account.lifted <= account.counter <= before
        waiting = sorted(one.counter for one in accounts if one.waiting)
        first = line.first()
        assert (None if first is None else first.counter) == (waiting[0] if waiting else None)
        if random.random() < 0.02:
            assert [one.counter for one in line.in_order()] == waiting
    assert len(line._entries) < 500


Kinds = dict[Terms, tuple[int, int, float]]
"""A tenant's requests: prompt, output, and the part of the prompt that is cached."""


@st.composite
def caches(draw: st.DrawFn) -> tuple[int, Kinds]:
    tenants = {
        Terms(f"t{number}", draw(st.sampled_from([1.0, 2.0])), ttft_s=draw(st.floats(0, 60))): (
            draw(st.integers(1, 2000)),
            draw(st.integers(1, 400)),
            draw(st.sampled_from([0.0, 0.5, 0.99, 1.0])),
        )
        for number in range(draw(st.integers(2, 5)))
    }
    return draw(st.integers(1, 6)), tenants


class Served:
    """Tenants with requests of one kind each, of which ``active`` ones always have some waiting."""

    def __init__(self, name: str, slots: int, tenants: Kinds) -> None:
        self.tenants = tenants
        self.engine = Slots(policy(name, **SHARING[name]), slots, self.cached)
        self.number = 0
        self.now = 0.0
        most = max(
            (prompt + 2 * output) / one.weight for one, (prompt, output, _) in tenants.items()
        )
        # As without caches, and once more what is in flight: it is charged before it is known what it costs.
        self.bound = 2 * max(most, SHARING[name].get("headroom", 0.0)) + 2 * slots * most

    def cached(self, ticket: Ticket) -> int:
        return int(self.tenants[ticket.terms][2] * ticket.prompt_tokens)

    def step(self, active: list[Terms]) -> None:
        waiting = [ticket.terms for ticket in self.engine.policy]
        for terms in active:
            prompt, output, _ = self.tenants[terms]
            for _ in range(self.engine.slots + 1 - waiting.count(terms)):
                self.number += 1
                ticket = Ticket(str(self.number), terms, self.now, prompt, output_tokens=output)
                self.engine.policy.add(ticket, self.now)
        self.engine.fill(self.now)
        self.engine.step(50, self.now)
        self.now += 0.5
        for ticket in [*self.engine.policy, *self.engine.running.values()]:
            account = ticket.account
            assert isfinite(account.counter)
            assert 0 <= account.lifted <= account.counter
            assert 0 <= account.level.lifted <= account.level.counter

    def since(self, before: dict[str, float]) -> dict[Terms, float]:
        served = self.engine.served
        return {
            one: served.get(one.tenant, 0.0) - before.get(one.tenant, 0.0) for one in self.tenants
        }


@each
@settings(max_examples=20, deadline=None)
@given(caches())
def test_tenants_that_wait_are_served_alike_by_what_is_computed(
    name: str, drawn: tuple[int, Kinds]
) -> None:
    house = Served(name, *drawn)
    for _ in range(300):
        house.step(list(house.tenants))
        served = house.since({}).values()
        assert max(served) - min(served) <= house.bound


@each
@settings(max_examples=20, deadline=None)
@given(caches(), st.integers(1, 300))
def test_who_was_idle_banks_no_credit_by_refunds(
    name: str, drawn: tuple[int, Kinds], idle: int
) -> None:
    house = Served(name, *drawn)
    first, *others = house.tenants
    house.step(list(house.tenants))  # some of the first one's are under way
    for _ in range(idle):
        house.step(others)
    before = dict(house.engine.served)
    for _ in range(200):
        house.step(list(house.tenants))
        since = house.since(before)
        for other in others:
            assert since[first] - since[other] <= house.bound
