"""The limit of what is in flight at an upstream that does not say its slots."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.scheduling.adaptive import AdaptiveLimit, UpstreamLimit
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.policy import Terms, Ticket


def settled(slots: int, limit: AdaptiveLimit, requests: int = 20_000) -> list[int]:
    """An upstream with so many slots, always asked for as much as the limit lets, that takes longer in proportion to
    what is there beyond: the weakest sign of a queue. The limits of the last thousand requests."""
    limits = []
    for _ in range(requests):
        in_flight = limit.limit
        limit.took(max(1.0, in_flight / slots), in_flight)
        limits.append(limit.limit)
    return limits[-1000:]


@pytest.mark.parametrize("slots", [4, 16, 100])
@pytest.mark.parametrize("initial", [4, 8])
def test_the_weakest_sign_of_a_queue_is_enough_not_to_grow_for_ever(
    slots: int, initial: int
) -> None:
    limits = settled(slots, AdaptiveLimit(initial=initial))
    assert min(limits) >= slots / 2
    assert sorted(limits)[500] >= slots
    assert max(limits) <= 3 * slots


def test_it_follows_an_upstream_that_loses_slots() -> None:
    limit = AdaptiveLimit()
    before = max(settled(64, limit))
    assert max(settled(8, limit)) < before / 2


def test_it_does_not_grow_where_it_is_not_what_limits() -> None:
    limit = AdaptiveLimit(initial=20)
    assert limit.limit == 10  # until it knows what it takes with few
    for _ in range(1000):
        limit.took(1.0, 3)
    assert limit.limit == 20


def test_refusals_shrink_it_at_once_and_never_below_the_least() -> None:
    limit = AdaptiveLimit(initial=100, least=2)
    for _ in range(5):  # what it takes with few
        limit.took(1.0, 1)
    limit.refused(95)
    assert limit.limit == 90
    limit.refused(7)  # that is what it had
    assert limit.limit == 7
    limit.refused(0)
    assert limit.limit == 2


def test_after_a_refusal_it_comes_back_soon_to_what_there_was_room_for() -> None:
    limit = AdaptiveLimit()
    while limit.limit < 100:
        limit.took(1.0, 1)
        limit.took(1.0, limit.limit)
    limit.refused(2)  # its upstream counts requests of a minute, say, and few were there
    assert limit.limit == 2
    for _ in range(60):
        limit.took(1.0, limit.limit)
    assert limit.limit >= 0.85 * 100
    for in_flight in range(90, 9, -1):  # many at once: that is all it has room for
        limit.refused(in_flight)
    for _ in range(60):
        limit.took(1.0, limit.limit)
    assert limit.limit <= 20


def test_who_may_have_one_learns_from_one() -> None:
    limit = AdaptiveLimit()
    limit.refused(0)
    assert limit.limit == 1
    for _ in range(100):
        limit.took(1.0, 1)
    assert limit.limit > 1


def test_the_first_that_is_late_is_no_queue_yet() -> None:
    limit = AdaptiveLimit()
    for _ in range(5):
        limit.took(1.0, 1)
    limit.took(100.0, 8)
    assert limit.limit >= 8


def test_few_long_prompts_do_not_tell_how_soon_a_short_one_is_due() -> None:
    limit = UpstreamLimit()
    for _ in range(5):
        limit.took(3000, 0.6, 1)
    for _ in range(30):
        limit.took(20, 0.4, limit.limit)
        assert limit.limit >= 8


@given(
    st.lists(st.one_of(st.tuples(st.floats(), st.integers(-10, 10_000)), st.none()), max_size=200),
    st.integers(1, 50),
)
def test_no_measurement_takes_it_out_of_its_bounds(
    seen: list[tuple[float, int] | None], most: int
) -> None:
    limit = AdaptiveLimit(initial=1, most=most)
    for one in seen:
        if one is None:
            limit.refused(3)
        else:
            limit.took(*one)
        assert 1 <= limit.limit <= most


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^initial: "):
        AdaptiveLimit(initial=8, most=4)


class World:
    """Our queue before an upstream that has ``slots``, and a line of its own where nobody overtakes; by a clock that
    costs no time. A prompt takes by its length and by chance, more or less by ``spread``; an answer ``answer_s`` on
    average."""

    def __init__(
        self,
        slots: int,
        *,
        answer_s: float = 5.0,
        spread: float = 0.2,
        most: int | None = None,
        seed: int = 7,
    ) -> None:
        self.limit = UpstreamLimit()
        self.spread = spread
        self.slots, self.answer_s, self.most = slots, answer_s, most
        self.policy = FairHeadroom()
        self.random = Random(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, str, Ticket]] = []
        self.numbers = iter(range(1_000_000))
        self.line: deque[Ticket] = deque()
        self.running = self.in_flight = 0
        self.sent: dict[str, tuple[float, int]] = {}
        self.first: dict[str, float] = {}
        self.limits: list[int] = []
        self.lines: list[int] = []
        self.waiting: list[int] = []

    def comes(self, at: float, terms: Terms, tokens: int | None = None) -> Ticket:
        if tokens is None:
            tokens = self.random.randrange(20, 4000)
        ticket = Ticket(f"r{next(self.numbers)}", terms, at, tokens)
        self.happens(at, "comes", ticket)
        return ticket

    def happens(self, at: float, what: str, ticket: Ticket) -> None:
        heappush(self.events, (at, next(self.numbers), what, ticket))

    def go(self) -> None:
        while self.events:
            self.now, _, what, ticket = heappop(self.events)
            if what == "comes":
                self.policy.add(ticket, self.now)
            elif what == "first":
                sent_at, in_flight = self.sent[ticket.id]
                self.first[ticket.id] = self.now - ticket.arrived_at
                self.policy.first_token(ticket, self.now)
                self.limit.took(ticket.prompt_tokens, self.now - sent_at, in_flight)
                self.limits.append(self.limit.limit)
                self.lines.append(len(self.line))
                self.waiting.append(len(self.policy))
            else:
                self.policy.ended(ticket, self.now)
                self.running -= 1
                self.in_flight -= 1
            while self.line and self.running < self.slots:
                self.starts(self.line.popleft())
            self.pump()

    def pump(self) -> None:
        while self.in_flight < (self.most or self.limit.limit):
            ticket = self.policy.take(self.now)
            if ticket is None:
                return
            self.in_flight += 1
            self.policy.began(ticket, self.now)
            self.sent[ticket.id] = self.now, self.in_flight
            if self.running < self.slots:
                self.starts(ticket)
            else:
                self.line.append(ticket)

    def starts(self, ticket: Ticket) -> None:
        self.running += 1
        chance = self.random.lognormvariate(0.0, self.spread)
        prompt_s = (0.1 + ticket.prompt_tokens * 1e-4) * chance
        answer_s = self.random.expovariate(1 / self.answer_s)
        self.happens(self.now + prompt_s, "first", ticket)
        self.happens(self.now + prompt_s + answer_s, "ends", ticket)


BATCH = Terms("job", level="batch")
PERSON = Terms("app", level="interactive", ttft_s=1.0)


@pytest.mark.parametrize(
    ("slots", "answer_s"), [(1, 5.0), (4, 30.0), (16, 5.0), (16, 0.3), (64, 5.0)]
)
def test_a_hidden_number_of_slots_is_found_and_its_own_line_stays_short(
    slots: int, answer_s: float
) -> None:
    world = World(slots, answer_s=answer_s)
    requests = 40 * slots + 300
    for _ in range(requests):
        world.comes(0.0, BATCH)
    world.go()
    assert len(world.first) == requests
    late = slice(
        len(world.limits) // 3, -2 * slots
    )  # it has learnt, and the queue is not yet empty
    assert slots / 2 <= median(world.limits[late]) <= 1.4 * slots + 2
    assert median(world.lines[late]) <= slots / 2 + 2
    ideal_s = requests * (world.answer_s + 0.3) / slots
    assert world.now <= 1.2 * ideal_s


@pytest.mark.parametrize("most", [None, 4096])
def test_an_urgent_request_does_not_stand_behind_a_deep_line(most: int | None) -> None:
    world = World(8, most=most)
    for _ in range(600):
        world.comes(0.0, BATCH)
    urgent = [world.comes(200.0 + 10 * n, PERSON) for n in range(10)]
    world.go()
    waits_s = [world.first[ticket.id] for ticket in urgent]
    if most is None:
        assert median(waits_s) <= 4.0
    else:
        assert min(waits_s) > 30.0  # what it would be if everything was given away at once


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.3, 0.6])
def test_times_that_vary_by_chance_hold_nobody_back_for_long(spread: float, seed: int) -> None:
    world = World(20_000, answer_s=20.0, spread=spread, seed=seed)
    for n in range(2000):
        world.comes(n / 5, BATCH)
    world.go()
    assert max(world.waiting) < 100


def test_one_late_first_token_of_many_changes_little() -> None:
    limit = AdaptiveLimit()
    settled(64, limit)
    for _ in range(20):
        limit.took(1.0, limit.limit)
    before = limit.limit
    limit.took(1000.0, before)
    for _ in range(20):
        limit.took(1.0, limit.limit)
    assert limit.limit >= before


def test_thousands_of_long_streams_are_let_in_as_they_come() -> None:
    world = World(20_000, answer_s=1000.0)
    for n in range(10_000):
        world.comes(n / 1000, BATCH, tokens=20)
    world.go()
    assert max(world.waiting) < 1024  # the bound of a queue
    assert median(world.first.values()) < 0.3


def test_an_upstream_that_slows_down_for_its_own_reasons_is_not_held_back_for_ever() -> None:
    limit = AdaptiveLimit()
    settled(64, limit)
    for _ in range(20_000):
        in_flight = limit.limit
        limit.took(3.0 * max(1.0, in_flight / 64), in_flight)
    assert limit.limit >= 32


def test_a_refusal_ends_the_doubts_whether_something_queues() -> None:
    one = AdaptiveLimit()
    for _ in range(300):
        one.took(1.0, one.limit)
    while not one._slow > 0.8 * one._estimate:
        one.took(2.6, one.limit)
    for _ in range(30):
        one.took(1.0, one.limit)
    one.refused(int(one._estimate * 0.7))
    for _ in range(200):
        one.took(1.0, one.limit)
    assert one.limit > 0.9 * one._estimate
