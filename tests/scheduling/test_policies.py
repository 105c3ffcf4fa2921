"""What holds under every policy."""

from __future__ import annotations

import re
from datetime import date
from inspect import signature
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.scheduling.load import NAMES, STARVING, WILD, Slots, terms

from headrace.scheduling.policies import POLICIES, policy
from headrace.scheduling.policy import Policy, Terms, Ticket


class Walk(RuleBasedStateMachine):
    """Anything may happen in any order, with any numbers: nobody is lost, nobody comes twice."""

    name: str

    def __init__(self) -> None:
        super().__init__()
        self.policy: Policy = policy(self.name)
        self.waiting: dict[str, Ticket] = {}
        self.running: dict[str, Ticket] = {}
        self.number = 0

    def one_of(self, tickets: dict[str, Ticket], pick: int) -> Ticket | None:
        return tickets[sorted(tickets)[pick % len(tickets)]] if tickets else None

    @rule(
        terms=terms(),
        arrived=WILD,
        prompt=WILD,
        cached=WILD,
        output=WILD,
        deadline=WILD,
        priority=WILD,
        now=WILD,
    )
    def add(
        self,
        terms: Terms,
        arrived: float,
        prompt: int,
        cached: int,
        output: int,
        deadline: float,
        priority: int,
        now: float,
    ) -> None:
        self.number += 1
        ticket = Ticket(
            *(str(self.number), terms, arrived, prompt, cached, output, deadline, priority)
        )
        self.policy.add(ticket, now)
        self.policy.add(ticket, now)
        self.waiting[ticket.id] = ticket

    @rule(now=WILD, begins=st.booleans())
    def take(self, now: float, begins: bool) -> None:
        first, ticket = self.policy.peek(now), self.policy.take(now)
        assert ticket is first
        assert (ticket is None) == (not self.waiting)
        if ticket is not None:
            assert self.waiting.pop(ticket.id) is ticket
            if begins:
                self.policy.began(ticket, now)
                self.running[ticket.id] = ticket

    @rule(terms=terms(), now=WILD)
    def begin_at_once(self, terms: Terms, now: float) -> None:
        self.number += 1
        ticket = self.running[str(self.number)] = Ticket(str(self.number), terms, now)
        self.policy.began(ticket, now)

    @rule(pick=st.integers(0, 99), tokens=WILD, now=WILD)
    def produce(self, pick: int, tokens: int, now: float) -> None:
        ticket = self.one_of(self.running, pick)
        if ticket is not None:
            self.policy.produced(ticket, tokens, now)
            self.policy.first_token(ticket, now)

    @rule(pick=st.integers(0, 99), prompt=WILD, cached=WILD, waits=st.booleans())
    def settle(self, pick: int, prompt: int, cached: int, waits: bool) -> None:
        ticket = self.one_of(self.waiting if waits else self.running, pick)
        if ticket is not None:
            self.policy.settled(ticket, prompt, cached)

    @rule(pick=st.integers(0, 99), now=WILD, again=st.booleans())
    def end(self, pick: int, now: float, again: bool) -> None:
        ticket = self.one_of(self.running, pick)
        if ticket is not None:
            del self.running[ticket.id]
            self.policy.ended(ticket, now)
            self.policy.ended(ticket, now)
            if again:
                self.policy.add(ticket, now)
                self.waiting[ticket.id] = ticket

    @rule(pick=st.integers(0, 99))
    def remove(self, pick: int) -> None:
        ticket = self.one_of(self.waiting, pick)
        if ticket is not None:
            del self.waiting[ticket.id]
            assert self.policy.remove(ticket)
            assert not self.policy.remove(ticket)

    @rule(now=WILD)
    def expire(self, now: float) -> None:
        for ticket in self.policy.expired(now):
            assert ticket.terms.sheddable
            del self.waiting[ticket.id]

    @rule(now=WILD, terms=terms())
    def shed(self, now: float, terms: Terms) -> None:
        least = self.policy.least_urgent(now, Ticket("new", terms, now))
        if least is not None:
            assert least.terms.sheddable
            assert self.waiting[least.id] is least

    @rule(pick=st.integers(0, 99), now=WILD)
    def preempt(self, pick: int, now: float) -> None:
        ticket = self.one_of(self.waiting, pick)
        if ticket is not None:
            victim = self.policy.victim(ticket, self.running.values(), now)
            assert victim is None or self.running[victim.id] is victim

    @invariant()
    def all_are_there(self) -> None:
        assert len(self.policy) == len(self.waiting)
        assert {ticket.id: ticket for ticket in self.policy} == self.waiting
        ranked = self.policy.ranked(0.0, self.number)
        assert sorted(one.id for one in ranked) == sorted(self.waiting)

    def teardown(self) -> None:
        while self.waiting:
            self.take(nan, True)
        assert self.policy.take(0.0) is None


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_lost_or_served_twice_whatever_happens(name: str) -> None:
    walk = type("Walk", (Walk,), {"name": name})
    case = walk.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    case().runTest()


@st.composite
def mixes(draw: st.DrawFn) -> list[Ticket]:
    """Kinds of requests, of which new ones come for ever."""
    kinds = draw(st.lists(terms(st.floats(0.5, 2), st.floats(0, 50)), min_size=1, max_size=6))
    return [
        Ticket(
            "",
            one,
            prompt_tokens=draw(st.integers(500, 1500)),
            output_tokens=draw(st.integers(100, 300)),
            deadline=draw(st.just(inf) | st.floats(0, 50)),
            priority=draw(st.integers(-2, 2)),
        )
        for one in kinds
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STARVING])
@settings(max_examples=25, deadline=None)
@given(mix=mixes(), pick=st.integers(0, 5), slots=st.integers(1, 4))
def test_no_request_waits_for_ever(name: str, mix: list[Ticket], pick: int, slots: int) -> None:
    """Twice as many come as can be served; one of them, which came after a while, is served in the end."""
    engine = Slots(policy(name), slots)
    number = 0
    for second in range(30_000):
        now = float(second)
        for _ in range(2 * slots):
            kind = mix[number % len(mix)]
            ticket = Ticket(
                *(str(number), kind.terms, now, kind.prompt_tokens, 0, kind.output_tokens),
                deadline=now + kind.deadline,
                priority=kind.priority,
            )
            engine.policy.add(ticket, now)
            if number == 20 * slots + pick:
                asked = ticket
            number += 1
        engine.fill(now)
        engine.step(10_000, now)
        if second > 20 and asked.charged:
            return
    raise AssertionError("it waits still")


def test_under_the_formula_a_tenant_in_time_waits_for_one_that_is_not() -> None:
    """What its docstring warns of."""
    formula = policy("slo-formula")
    light, heavy = Terms("light", ttft_s=10), Terms("heavy", ttft_s=10)
    for tenant, latency_s in ((light, 5.0), (heavy, 60.0)):
        before = Ticket("before", tenant)
        formula.add(before, 0.0)
        formula.take(0.0)
        formula.began(before, 0.0)
        formula.first_token(before, latency_s)
    asked = Ticket("asked", light)
    formula.add(asked, 60.0)
    for number in range(1000):
        formula.add(Ticket(str(number), heavy, 61.0 + number), 61.0 + number)
        taken = formula.take(61.0 + number)
        assert taken is not None
        assert taken is not asked


@pytest.mark.parametrize("name", NAMES)
def test_one_that_goes_on_is_not_charged_twice(name: str) -> None:
    one = policy(name)
    ticket = Ticket("a", prompt_tokens=100)
    one.began(ticket, 0.0)
    one.produced(ticket, 7, 0.0)
    one.ended(ticket, 0.0)
    one.add(ticket, 1.0)
    assert one.take(1.0) is ticket
    one.began(ticket, 1.0)
    assert (ticket.charged, ticket.produced) == (True, 7)


@pytest.mark.parametrize(
    ("name", "settings", "key"),
    [
        ("round-robin", {}, "policy"),
        ("fcfs", {"headroom": 1}, "headroom"),
        ("fair", {"shares": {"batch": -1}}, "shares.batch"),
        ("fair", {"output_cost": nan}, "output_cost"),
        ("fair-headroom", {"headroom": inf}, "headroom"),
        ("fair-headroom", {"rescue_after": 0}, "rescue_after"),
        ("priority", {"levels": ("a", "a")}, "levels"),
        ("edf", {"targets_s": {"batch": -1}}, "targets_s.batch"),
        ("slo-formula", {"weights": (1, 2)}, "weights"),
        ("fcfs", {"name": "x"}, "name"),
    ],
)
def test_unknown_and_impossible_settings_are_named(
    name: str, settings: dict[str, object], key: str
) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        policy(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("fair-headroom", {"headroom": "x"}, 'headroom: must be a number, not "x"'),
        ("fair-headroom", {"pressed": True}, "pressed: must be a number, not true"),
        ("fair-headroom", {"headroom_s": [3]}, "headroom_s: must be a number, not a list"),
        ("fair-headroom", {"headroom_s": {}}, "headroom_s: must be a number, not a table"),
        ("fair-headroom", {"pressed": nan}, "pressed: must be a number from 0, below 1e+12"),
        (
            "fair-headroom",
            {"rescue_rate": 0},
            "rescue_rate: must be a number from 0.01, below 1e+12",
        ),
        ("fair", {"shares": 3}, "shares: must be a table of numbers by class, not a number"),
        ("fair", {"shares": {"batch": "a\nb"}}, r'shares.batch: must be a number, not "a\nb"'),
        ("edf", {"targets_s": "x"}, 'targets_s: must be a table of numbers by class, not "x"'),
        ("priority", {"levels": "abc"}, 'levels: must be a list, not "abc"'),
        ("priority", {"levels": ["a", 3]}, "levels[1]: must be a text, not a number"),
        ("priority", {"age_s": date(2026, 1, 1)}, "age_s: must be a number, not a date"),
        ("slo-formula", {"weights": "abc"}, 'weights: must be a list, not "abc"'),
        ("slo-formula", {"weights": [1, 2, "x"]}, 'weights[2]: must be a number, not "x"'),
        (
            "slo-formula",
            {"weights": [1, -2, 3]},
            "weights[1]: must be a number from 0, below 1e+12",
        ),
    ],
)
def test_settings_of_the_wrong_kind_are_told_in_one_line(
    name: str, settings: dict[str, object], line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        policy(name, **settings)


OPTIONS = [(name, key) for name, make in POLICIES.items() for key in signature(make).parameters]
ANY = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
"""What a settings file may say."""


@given(option=st.sampled_from(OPTIONS), value=ANY)
def test_whatever_a_setting_is_it_is_taken_or_named(option: tuple[str, str], value: object) -> None:
    name, key = option
    assert refusal(name, {key: value}).startswith((key, "none"))


def refusal(name: str, settings: dict[str, object]) -> str:
    try:
        policy(name, **settings)
    except ValueError as error:
        return str(error)
    return "none"


def test_the_default_is_named_first() -> None:
    assert next(iter(POLICIES)) == "fair-headroom"
