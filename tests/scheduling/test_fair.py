"""Fair shares, with and without headroom: what the tenants are promised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scheduling.load import Slots

from headrace.scheduling.accounts import FEW
from headrace.scheduling.fair import Fair
from headrace.scheduling.fair_headroom import HEADROOM, FairHeadroom
from headrace.scheduling.ledger import SHARES, SWEEP, Ledger
from headrace.scheduling.policies import policy
from headrace.scheduling.policy import Terms, Ticket

SHARING: dict[str, dict[str, float]] = {"fair": {}, "fair-headroom": {"headroom": HEADROOM}}
"""Policies, and how much they may favour somebody for a deadline."""

each = pytest.mark.parametrize("name", list(SHARING))


class Backlog:
    """Tenants that always have requests waiting, in an engine with slots. A tenant's requests are alike, by turns."""

    def __init__(self, name: str, slots: int, tenants: dict[Terms, list[tuple[int, int]]]) -> None:
        self.engine = Slots(policy(name, **SHARING[name]), slots)
        self.tenants = tenants
        self.numbers = count()
        self.waiting: Counter[str] = Counter()
        self.now = 0.0

    def step(self, active: Iterable[Terms]) -> None:
        for terms in active:
            while self.waiting[terms.tenant] <= self.engine.slots:
                number = next(self.numbers)
                kinds = self.tenants[terms]
                prompt, output = kinds[number % len(kinds)]
                ticket = Ticket(str(number), terms, self.now, prompt, output_tokens=output)
                self.engine.policy.add(ticket, self.now)
                self.waiting[terms.tenant] += 1
        before = len(self.engine.taken)
        self.engine.fill(self.now)
        for ticket in self.engine.taken[before:]:
            self.waiting[ticket.terms.tenant] -= 1
        self.engine.step(50, self.now)
        self.now += 0.5

    @property
    def largest(self) -> float:
        """The largest request, in the units of the counters."""
        return max(
            (prompt + 2 * output) / terms.weight
            for terms, kinds in self.tenants.items()
            for prompt, output in kinds
        )

    @property
    def in_flight(self) -> float:
        """At most, in the units of the counters."""
        return self.engine.slots * self.largest

    def bound(self, name: str) -> float:
        """2 · max(one request, headroom) + what is in flight, in the units of the counters."""
        return 2 * max(self.largest, SHARING[name].get("headroom", 0.0)) + self.in_flight


@st.composite
def backlogs(draw: st.DrawFn) -> tuple[int, dict[Terms, list[tuple[int, int]]]]:
    sizes = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 400)), min_size=1, max_size=3)
    tenants = {
        Terms(f"t{number}", draw(st.sampled_from([1.0, 2.0])), ttft_s=draw(st.floats(0, 60))): draw(
            sizes
        )
        for number in range(draw(st.integers(2, 5)))
    }
    return draw(st.integers(1, 6)), tenants


@each
@settings(max_examples=20, deadline=None)
@given(backlogs())
def test_tenants_that_wait_are_served_alike(
    name: str, drawn: tuple[int, dict[Terms, list[tuple[int, int]]]]
) -> None:
    slots, tenants = drawn
    backlog = Backlog(name, slots, tenants)
    bound = backlog.bound(name)
    for _ in range(300):
        backlog.step(tenants)
        served = [backlog.engine.served.get(terms.tenant, 0.0) for terms in tenants]
        assert max(served) - min(served) <= bound


@each
@settings(max_examples=20, deadline=None)
@given(backlogs(), st.integers(1, 300))
def test_who_was_idle_banks_no_credit(
    name: str, drawn: tuple[int, dict[Terms, list[tuple[int, int]]]], idle: int
) -> None:
    slots, tenants = drawn
    backlog = Backlog(name, slots, tenants)
    first, *others = tenants
    for _ in range(idle):
        backlog.step(others)
    before = Counter(backlog.engine.served)
    bound = backlog.bound(name) + backlog.in_flight  # what was when it began is for somebody, too
    for _ in range(200):
        backlog.step(tenants)
        since = {
            terms: backlog.engine.served.get(terms.tenant, 0.0) - before[terms.tenant]
            for terms in tenants
        }
        for other in others:
            assert abs(since[first] - since[other]) <= bound


@each
def test_classes_share_by_credit(name: str) -> None:
    tenants = {Terms(f"{level}{n}", 1, level): [(100, 50)] for level in SHARES for n in range(3)}
    backlog = Backlog(name, 2, tenants)
    for _ in range(3000):
        backlog.step(tenants)
    served: Counter[str] = Counter()
    for terms in tenants:
        served[terms.level] += int(backlog.engine.served[terms.tenant])
    for level, share in SHARES.items():
        assert served[level] / served.total() == pytest.approx(
            share / sum(SHARES.values()), rel=0.1
        )


@each
def test_a_cached_prompt_costs_what_is_not_cached(name: str) -> None:
    one = policy(name)
    cached, cold = Terms("cached"), Terms("cold")
    for number in range(40):
        one.add(Ticket(f"a{number}", cached, 0.0, 1000, 900, 0), 0.0)
        one.add(Ticket(f"b{number}", cold, 0.0, 1000, 0, 0), 0.0)
    served: Counter[str] = Counter()
    for _ in range(44):
        ticket = one.take(0.0)
        assert ticket is not None
        one.began(ticket, 0.0)
        served[ticket.terms.tenant] += 1
    assert served["cached"] == pytest.approx(40, abs=1 if name == "fair" else 30)


@each
def test_weight_0_is_served_when_nobody_else_waits(name: str) -> None:
    one = policy(name)
    for number in range(5):
        one.add(Ticket(f"none{number}", Terms("none", 0.0, "interactive"), 0.0), 0.0)
        one.add(Ticket(f"some{number}", Terms("some", 0.1, "batch"), 1.0), 1.0)
    order = []
    while (ticket := one.take(2.0)) is not None:
        one.began(ticket, 2.0)
        order.append(ticket.terms.tenant)
    assert order == ["some"] * 5 + ["none"] * 5


@each
def test_who_uses_free_slots_pays_for_them(name: str) -> None:
    """A tenant that never had to wait has no debt when others come, and no credit either."""
    one = policy(name)
    for number in range(100):
        direct = Ticket(f"direct{number}", Terms("a"), 0.0, 1000)
        one.began(direct, 0.0)
        one.produced(direct, 100, 0.0)
        one.ended(direct, 0.0)
    for number in range(10):
        one.add(Ticket(f"a{number}", Terms("a"), 1.0, 3000), 1.0)
        one.add(Ticket(f"b{number}", Terms("b"), 1.0, 3000), 1.0)
    served = []
    for _ in range(10):
        ticket = one.take(2.0)
        assert ticket is not None
        one.began(ticket, 2.0)
        served.append(ticket.terms.tenant)
    assert 4 <= served.count("a") <= 6


@each
def test_the_last_of_who_has_most_waiting_gives_way(name: str) -> None:
    one = policy(name)
    light, heavy = Terms("light", sheddable=True), Terms("heavy", sheddable=True)
    for number in range(10):
        one.add(Ticket(f"heavy{number}", heavy, float(number), 1000), float(number))
    one.add(Ticket("light", light, 20.0, 1000), 20.0)
    least = one.least_urgent(20.0)
    assert least is not None
    assert least.id == "heavy9"
    assert one.least_urgent(21.0, Ticket("new", light, 21.0)) is least
    assert one.least_urgent(21.0, Ticket("new", heavy, 21.0)) is None
    one.remove(least)
    least = one.least_urgent(20.0)
    assert least is not None
    assert least.id == "heavy8"
    for ticket in list(one):
        if ticket.terms is heavy and ticket.id != "heavy0":
            one.remove(ticket)
    one.add(Ticket("light2", light, 21.0, 1000), 21.0)
    least = one.least_urgent(22.0)
    assert least is not None
    assert least.id == "light2"


@each
def test_a_class_that_had_more_than_its_share_is_pre_empted(name: str) -> None:
    one = policy(name)
    running = [Ticket(str(n), Terms("b", level="batch"), 0.0, 1000 * (3 - n)) for n in range(3)]
    for ticket in running:
        one.began(ticket, 0.0)
    urgent = Ticket("urgent", Terms("a", level="interactive", ttft_s=10.0), 5.0)
    one.add(urgent, 5.0)
    pressed_at = 5.0 if name == "fair" else 12.0
    assert one.victim(urgent, running, pressed_at) is running[2]
    later = Ticket("later", Terms("b", level="batch", ttft_s=10.0), 5.0)
    one.add(later, 5.0)
    assert one.victim(later, running, pressed_at) is None


def test_who_has_more_than_its_share_of_the_slots_gives_one_up_in_time() -> None:
    one = FairHeadroom()
    heavy, light = Terms("heavy", ttft_s=10.0), Terms("light", ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 1000, produced=10 * n) for n in range(4)]
    for ticket in running:
        one.began(ticket, 0.0)
    running[0].pauses = 1
    came = [Ticket(f"light{n}", light, 5.0) for n in range(3)]
    for number, ticket in enumerate(came):
        one.add(ticket, 5.0)
        assert one.victim(ticket, running, 5.0) is None  # it has time
        victim = one.victim(ticket, running, 12.0)
        if number == 2:
            assert victim is None  # each has two
            break
        assert victim is running[(number and 2) or 1]
        one.ended(victim, 12.0)
        running.remove(victim)
        one.serve(ticket, 12.0)
        one.began(ticket, 12.0)
        running.insert(0, ticket)
        running.append(victim)
    more = Ticket("more", heavy, 5.0)
    one.add(more, 5.0)
    assert one.victim(more, running, 12.0) is None


def test_a_tenant_with_twice_the_weight_has_twice_the_slots() -> None:
    one = FairHeadroom()
    heavy, light = Terms("heavy", 1.0, ttft_s=10.0), Terms("light", 2.0, ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 1000, produced=1) for n in range(3)]
    running += [Ticket(f"light{n}", light, 0.0, 1000, produced=1) for n in range(2)]
    for ticket in running:
        one.began(ticket, 0.0)
    third, fourth = Ticket("third", light, 5.0), Ticket("fourth", light, 5.0)
    one.add(third, 5.0)
    assert one.victim(third, running, 12.0) is running[0]
    one.serve(third, 12.0)
    one.began(third, 12.0)
    one.add(fourth, 5.0)
    assert one.victim(fourth, running, 12.0) is running[0]
    one.ended(running.pop(0), 12.0)
    one.serve(fourth, 12.0)
    one.began(fourth, 12.0)
    fifth = Ticket("fifth", light, 5.0)
    one.add(fifth, 5.0)
    assert one.victim(fifth, running, 12.0) is None


def test_only_who_is_short_of_time_and_can_be_in_time_hurries() -> None:
    one = FairHeadroom(pressed=0.5)
    heavy, light = Terms("heavy", ttft_s=10.0), Terms("light", ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 1000) for n in range(2)]
    for ticket in running:
        one.began(ticket, 0.0)

    def hurries(now: float, terms: Terms = light) -> bool:
        return one.hurries(Ticket("asks", terms, 20.0, 1000), running, now, "express")

    assert not hurries(24.0)
    assert hurries(25.0)
    assert hurries(29.0)
    assert not hurries(30.0)
    assert not hurries(29.0, heavy)
    assert one.victim(running[0], running, 29.0) is None
    one.ended(running.pop(), 29.0)
    assert not hurries(29.0)


def test_who_would_be_late_elsewhere_hurries_where_it_would_not() -> None:
    one = FairHeadroom(pressed=1.0)
    heavy, light = Terms("heavy", ttft_s=1.0), Terms("light", ttft_s=1.0)
    for number in range(50):
        for replica, took_s in (("busy", 3.0), ("express", 0.1)):
            ticket = Ticket("taught", heavy, number, 100, replica=replica)
            one.began(ticket, number)
            one.first_token(ticket, number + took_s)
            one.ended(ticket, number + took_s)
    running = [Ticket(str(n), heavy, 60.0, 100, replica="busy") for n in range(2)]
    for ticket in running:
        one.began(ticket, 60.0)
        one.first_token(ticket, 60.0)
    asks = Ticket("asks", light, 60.0, 100)
    assert one.hurries(asks, running, 60.0, "express")
    assert asks.start_by < 60.0
    assert not one.hurries(asks, running, 60.0, "busy")


def test_a_place_that_was_slow_once_is_tried_again_after_a_while() -> None:
    one = FairHeadroom(pressed=1.0)
    heavy, light = Terms("heavy", ttft_s=1.0), Terms("light", ttft_s=1.0)
    for number in range(50):
        ticket = Ticket("taught", heavy, number, 100, replica="express")
        one.began(ticket, number)
        one.first_token(ticket, number + 3.0)
        one.ended(ticket, number + 3.0)
    running = [Ticket(str(n), heavy, 60.0, 100, replica="busy") for n in range(2)]
    for ticket in running:
        one.began(ticket, 60.0)
    assert not one.hurries(Ticket("asks", light, 60.0, 100), running, 60.0, "express")
    assert one.hurries(Ticket("later", light, 100.0, 100), running, 100.0, "express")


def test_who_was_served_more_than_the_headroom_beyond_others_does_not_hurry() -> None:
    one = FairHeadroom(pressed=1.0, headroom=1000)
    heavy, light = Terms("heavy", ttft_s=10.0), Terms("light", ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 100) for n in range(3)]
    for ticket in running:
        one.began(ticket, 0.0)
    hurried = 0
    for number in range(10):
        ticket = Ticket(f"light {number}", light, 0.0, 500)
        if one.hurries(ticket, running, 1.0, "express"):
            one.began(ticket, 1.0)
            one.ended(ticket, 1.0)
            hurried += 1
    assert hurried == 3


def test_who_has_others_waiting_is_not_ahead_of_them() -> None:
    one = FairHeadroom(pressed=1.0)
    heavy, light = Terms("heavy", ttft_s=10.0), Terms("light", ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 1000) for n in range(2)]
    for ticket in running:
        one.began(ticket, 0.0)
    first, second = Ticket("first", light, 1.0), Ticket("second", light, 1.0)
    one.add(first, 1.0)
    assert not one.hurries(second, running, 1.0, "express")
    assert one.hurries(first, running, 1.0, "express")


def test_no_more_is_computed_again_than_a_tenth_of_what_is_served() -> None:
    one = FairHeadroom(headroom=2500)
    heavy, light = Terms("heavy", ttft_s=10.0), Terms("light", ttft_s=10.0)
    running = [Ticket(str(n), heavy, 0.0, 1000, produced=1) for n in range(4)]
    for ticket in running:
        one.began(ticket, 0.0)
    urgent = Ticket("urgent", light, 5.0)
    one.add(urgent, 5.0)
    assert [one.victim(urgent, running, 12.0) is None for _ in range(3)] == [False, False, True]
    one.produced(running[0], 2000, 12.0)  # 4,000 weighted tokens: 400 more may be
    assert one.victim(urgent, running, 12.0) is None
    one.produced(running[0], 2000, 12.0)
    assert one.victim(urgent, running, 12.0) is not None


def test_an_answer_that_has_begun_goes_on_before_its_tenants_others_however_late() -> None:
    one = FairHeadroom()
    terms = Terms("a", ttft_s=10.0)
    begun = Ticket("begun", terms, 100.0, begun=True)
    one.began(begun, 100.0)
    one.ended(begun, 130.0)
    for number in range(5):
        one.add(Ticket(str(number), terms, 128.0), 128.0)
    one.add(begun, 130.0)
    assert one.peek(130.0) is begun
    assert one.peek(250.0) is begun
    for number in range(5):
        one.add(Ticket(f"new{number}", terms, 250.0), 250.0)
    order = []
    while (ticket := one.take(250.0)) is not None:
        order.append(ticket.id)
    assert order.index("begun") <= 1


def test_positions_are_those_in_which_they_run() -> None:
    random = Random(1)
    fair = Fair()
    terms = [Terms(str(n), random.uniform(0.5, 4), random.choice(list(SHARES))) for n in range(20)]
    for number in range(300):
        fair.add(Ticket(str(number), random.choice(terms), 0.0, random.randrange(999)), 0.0)
    ranked = fair.ranked(0.0, 300)
    order = []
    while (ticket := fair.take(0.0)) is not None:
        fair.began(ticket, 0.0)
        fair.produced(ticket, ticket.output_tokens, 0.0)
        fair.ended(ticket, 0.0)
        order.append(ticket)
    assert ranked == order


def test_accounts_of_who_is_gone_are_forgotten_and_debts_are_not() -> None:
    ledger = Ledger(SHARES)
    debtor = ledger.of(Ticket("d", Terms("debtor")))
    ledger.charge(debtor, 10_000)
    for number in range(20 * SWEEP):
        tenant = ledger.of(Ticket("t", Terms(str(number))))
        ledger.begins_at_once(tenant)
    assert len(ledger) <= 2 * SWEEP
    assert ledger.of(Ticket("d", Terms("debtor"))) is debtor


class Oracle:
    """Who may be next under fair-headroom, by looking at everybody; several where counters are equal."""

    def __init__(self, headroom: float) -> None:
        self.headroom = headroom

    def next(self, waiting: list[Ticket], now: float) -> list[Ticket]:
        levels = {one.account.level for one in waiting}
        if any(not one.last for one in levels):
            levels = {one for one in levels if not one.last}
        least = min((one.counter for one in levels), default=0.0)
        near = [one for one in levels if one.counter <= least + self.headroom]
        for rank in (self.in_time, self.a_few_late, self.overloading):
            firsts = [
                min(ones, key=lambda one: one.start_by)
                for level in near
                if (ones := rank(level, waiting, now))
            ]
            pressed = [one for one in firsts if one.pressed_at <= now]
            if pressed:
                first = min(pressed, key=lambda one: one.start_by)
                if self.late(first, now):
                    return [one for one in firsts if one.start_by == first.start_by]
                return [self.of_tenant(first.account, waiting, now)]
        return [
            self.of_tenant(tenant, waiting, now)
            for level in levels
            if level.counter == least
            for tenant in self.least(level, waiting)
        ]

    @staticmethod
    def least(level: object, waiting: list[Ticket]) -> list[Any]:
        tenants = {one.account for one in waiting if one.account.level is level}
        least = min(one.counter for one in tenants)
        return [one for one in tenants if one.counter == least]

    def near(self, level: Any, waiting: list[Ticket]) -> list[Ticket]:
        """Of tenants within the headroom."""
        here = [one for one in waiting if one.account.level is level]
        least = level.tenants.first().counter
        assert least == min(one.account.counter for one in here)
        return [one for one in here if one.account.counter - self.headroom <= least]

    def overloads(self, tenant: object, waiting: list[Ticket], now: float) -> bool:
        return sum(one.account is tenant and self.late(one, now) for one in waiting) > FEW

    def in_time(self, level: Any, waiting: list[Ticket], now: float) -> list[Ticket]:
        return [
            one
            for one in self.near(level, waiting)
            if not self.late(one, now) and not self.overloads(one.account, waiting, now)
        ]

    def a_few_late(self, level: Any, waiting: list[Ticket], now: float) -> list[Ticket]:
        """Of each tenant the one that is to be rescued first."""
        late = [
            one
            for one in self.near(level, waiting)
            if self.late(one, now) and not self.overloads(one.account, waiting, now)
        ]
        tenants = {one.account for one in late}
        return [
            min((one for one in late if one.account is tenant), key=lambda one: one.rescue_at)
            for tenant in tenants
        ]

    def overloading(self, level: Any, waiting: list[Ticket], now: float) -> list[Ticket]:
        if not self.overloads(level.tenants.first(), waiting, now):
            return []
        return [
            one
            for one in self.near(level, waiting)
            if not self.late(one, now) and self.overloads(one.account, waiting, now)
        ]

    def of_tenant(self, tenant: object, waiting: list[Ticket], now: float) -> Ticket:
        own = [one for one in waiting if one.account is tenant]
        late = [one for one in own if self.late(one, now)]
        in_time = [one for one in own if not self.late(one, now)]
        oldest = min(late, key=lambda one: one.rescue_at, default=None)
        if oldest is not None and (
            not in_time or (own[0].account.owed >= 1 and oldest.rescue_at < now)
        ):
            return oldest
        return min(in_time, key=lambda one: one.start_by)

    @staticmethod
    def late(ticket: Ticket, now: float) -> bool:
        return ticket.late or ticket.start_by < now


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.floats(0, 5000), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_lazy_choice_is_that_of_looking_at_everybody(
    seed: int, headroom: float, pressed: float
) -> None:
    random = Random(seed)
    lazy = FairHeadroom(headroom=headroom, pressed=pressed, rescue_after=2)
    oracle = Oracle(headroom)
    tenants = [
        Terms(
            str(number),
            random.choice([0.0, 0.5, 1.0, 2.0]),
            random.choice(["interactive", "standard"]),
            random.uniform(1, 30),
        )
        for number in range(8)
    ]
    running: list[Ticket] = []
    now = 0.0
    for number in range(400):
        now += random.expovariate(2.0)
        for _ in range(random.randrange(4)):
            size = random.randrange(1, 3000)
            ticket = Ticket(f"{number}", random.choice(tenants), now, size)
            if random.random() < 0.3:
                ticket.deadline = now + random.uniform(0, 60)
            lazy.add(ticket, now)
        waiting = list(lazy)
        if waiting and random.random() < 0.1:
            lazy.remove(waiting.pop(random.randrange(len(waiting))))
        for _ in range(random.randrange(3)):
            waiting = list(lazy)
            expected = oracle.next(waiting, now)
            taken = lazy.take(now)
            assert (taken in expected) if expected else taken is None
            if taken is not None:
                lazy.began(taken, now)
                lazy.first_token(taken, now)
                running.append(taken)
        for ticket in random.sample(running, len(running) // 2):
            lazy.produced(ticket, random.randrange(200), now)
            if random.random() < 0.3:
                size = ticket.prompt_tokens
                lazy.settled(ticket, random.randrange(3000), random.randrange(size + 1))
            if random.random() < 0.3:
                lazy.ended(ticket, now)
                running.remove(ticket)


def test_the_headroom_is_what_is_served_in_three_seconds() -> None:
    one = FairHeadroom()
    assert one.headroom == HEADROOM
    ticket = Ticket("a", arrived_at=0.0, prompt_tokens=100)
    one.began(ticket, 0.0)
    for tenth in range(1, 601):
        one.produced(ticket, 50, tenth / 10)
    assert one.headroom == pytest.approx(3 * 50 * 2 * 10, rel=0.02)
    for tenth in range(2000, 3000):  # after a pause that was none of its
        one.produced(ticket, 5, tenth / 10)
    assert one.headroom == pytest.approx(3 * 5 * 2 * 10, rel=0.02)
    for now in (math.nan, -1.0, math.inf, 0.0, 0.1):
        one.produced(ticket, 10**12, now)
        assert 256 <= one.headroom <= 1e6
    assert FairHeadroom(headroom=5.0).headroom == 5.0


def test_a_pressed_request_goes_ahead_of_its_turn_within_the_headroom_only() -> None:
    one = FairHeadroom(headroom=1000)
    slow, quick = Terms("slow", ttft_s=60.0), Terms("quick", ttft_s=10.0)
    for number, size in enumerate((700, 500, 10, 10)):
        one.began(Ticket(f"before{number}", quick, 0.0, 0), 0.0)
        one.add(Ticket(f"quick{number}", quick, 0.0, size), 0.0)
        one.add(Ticket(f"slow{number}", slow, 0.0, size), 0.0)
    order = []
    for _ in range(4):
        ticket = one.take(6.0)
        assert ticket is not None
        one.began(ticket, 6.0)
        order.append(ticket.id)
    assert order[:3] == ["quick0", "quick1", "slow0"]


def test_who_is_late_waits_behind_others_of_its_tenant_and_is_rescued() -> None:
    one = FairHeadroom(rescue_after=10, rescue_rate=1)
    terms = Terms("a", ttft_s=1.0)
    for number in range(6):
        one.add(Ticket(f"old{number}", terms, 0.0), 0.0)
    for number in range(6):
        one.add(Ticket(f"new{number}", terms, 9.5), 9.5)
    first = [taken.id for _ in range(2) if (taken := one.take(9.6))]
    assert first == ["new0", "new1"]
    for number in range(6):
        one.add(Ticket(f"newer{number}", terms, 10.0), 10.0)
    after = [taken.id for _ in range(4) if (taken := one.take(10.05))]
    assert after == ["new2", "old0", "new3", "old1"]


def test_who_has_a_few_late_ones_is_ahead_of_who_causes_the_overload() -> None:
    one = FairHeadroom(rescue_after=100)
    heavy, light = Terms("heavy", ttft_s=1.0), Terms("light", ttft_s=1.0)
    for number in range(FEW + 1):
        one.add(Ticket(f"heavy's late {number}", heavy, 0.0), 0.0)
    one.add(Ticket("light's late", light, 0.1), 0.1)
    one.add(Ticket("heavy's", heavy, 9.1), 9.1)
    one.add(Ticket("light's", light, 9.2), 9.2)
    order = [taken.id for _ in range(4) if (taken := one.take(9.9))]
    assert order == ["light's", "light's late", "heavy's", "heavy's late 0"]


def test_sheddable_ones_that_can_be_in_time_nowhere_are_not_refused() -> None:
    one = FairHeadroom()
    one.add(Ticket("huge", Terms("a", ttft_s=0.001, sheddable=True), 0.0, 10**6), 0.0)
    assert one.expired(50.0) == []
    taken = one.take(50.0)
    assert taken is not None
    assert taken.id == "huge"


def test_what_ran_already_is_not_refused_for_being_late() -> None:
    one = FairHeadroom()
    ticket = Ticket("moved", Terms("a", ttft_s=1.0, sheddable=True), 0.0)
    one.began(ticket, 0.0)
    one.ended(ticket, 0.5)
    one.add(ticket, 0.5)
    assert one.expired(50.0) == []
    assert one.take(50.0) is ticket
