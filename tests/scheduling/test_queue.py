"""The bounded queue of a model, with the simplest policy."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.fcfs import Fcfs
from headrace.scheduling.policy import Terms, Ticket
from headrace.scheduling.queue import Overflow, Queue, Wait


@dataclass(frozen=True)
class Item:
    id: str


SHEDDABLE = Terms(sheddable=True)


def queue_of(limit: int) -> Queue[Item]:
    return Queue(Fcfs(), limit, timeout_s=10)


def push(
    queue: Queue[Item],
    id: str,
    now: float = 0.0,
    overflow: Overflow = Overflow.REJECT,
    terms: Terms = SHEDDABLE,
) -> tuple[int, Item | None]:
    position, gave_way = queue.push(Item(id), Ticket(id, terms, arrived_at=now), now, overflow)
    return position, gave_way


def following(queue: Queue[Item], now: float) -> Wait[Item] | None:
    item = queue.first(now)
    return None if item is None else queue.serve(item, now)


def drained(queue: Queue[Item], now: float = 0.0) -> list[str]:
    ids = []
    while (wait := following(queue, now)) is not None:
        ids.append(wait.item.id)
    return ids


def test_items_leave_in_the_order_they_came() -> None:
    queue = queue_of(3)
    assert [push(queue, id) for id in "abc"] == [(1, None), (2, None), (3, None)]
    assert queue.first(0.0) == Item("a")
    assert drained(queue) == ["a", "b", "c"]
    assert queue.first(0.0) is None


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    queue = queue_of(1)
    push(queue, "a")
    with pytest.raises(HeadraceError) as refused:
        push(queue, "b")
    assert refused.value.code is Code.QUEUE_FULL
    assert refused.value.retry_after_s
    assert len(queue) == 1


def test_what_was_admitted_before_rejoins_even_when_full_and_by_its_arrival() -> None:
    queue = queue_of(1)
    push(queue, "a", now=2.0)
    queue.rejoin(Item("moved"), Ticket("moved", arrived_at=1.0), since=2.0, now=2.0)
    assert drained(queue) == ["moved", "a"]


def test_only_those_who_waited_too_long_are_overdue_and_they_stay() -> None:
    queue = queue_of(5)
    push(queue, "early", 0.0)
    push(queue, "late", 5.0)
    queue.rejoin(Item("older"), Ticket("older", arrived_at=0.0), since=-1.0, now=5.0)
    assert queue.overdue(11.0) == [Item("older"), Item("early")]
    queue.remove(Item("older"))
    assert queue.overdue(11.0) == [Item("early")]
    assert queue.overdue(float("nan")) == []


def test_who_waited_too_long_is_found_after_the_clock_went_back() -> None:
    queue = queue_of(5)
    push(queue, "a", 100.0)
    push(queue, "b", 3.0)
    push(queue, "c", 4.0)
    assert queue.overdue(14.5) == [Item("b"), Item("c")]
    queue.remove(Item("b"))
    assert queue.overdue(111.0) == [Item("c"), Item("a")]


def test_who_may_wait_outside_comes_in_when_there_is_room() -> None:
    queue = queue_of(2)
    for id in "ab":
        push(queue, id)
    assert push(queue, "c", 1.0, Overflow.WAIT) == (3, None)
    assert push(queue, "d", 2.0, Overflow.WAIT) == (4, None)
    with pytest.raises(HeadraceError):
        push(queue, "e", 3.0, Overflow.WAIT)
    assert queue.overdue(11.5) == [Item("a"), Item("b"), Item("c")]
    assert queue.remove(Item("c"))
    queue.remove(Item("a"))
    assert len(queue.policy) == 2
    assert drained(queue) == ["b", "d"]


def test_the_least_urgent_gives_way_only_if_it_agreed_to_and_is_less_urgent() -> None:
    queue = queue_of(2)
    push(queue, "a", 1.0)
    push(queue, "b", 2.0, terms=Terms())
    with pytest.raises(HeadraceError):
        push(queue, "late", 3.0, Overflow.SHED)
    assert push(queue, "early", 0.5, Overflow.SHED) == (2, Item("a"))
    assert Item("a") not in queue.items()
    assert push(queue, "earliest", 0.1, Overflow.SHED, Terms()) == (2, Item("early"))
    with pytest.raises(HeadraceError):
        push(queue, "nobody agreed", 0.0, Overflow.SHED)
    assert drained(queue) == ["earliest", "b"]


@pytest.mark.parametrize("limit", [0, 1])
def test_what_could_not_spill_over_is_refused(limit: int) -> None:
    queue = queue_of(limit)
    for number in range(limit):
        push(queue, str(number))
    with pytest.raises(HeadraceError) as refused:
        push(queue, "b", overflow=Overflow.SPILL)
    assert refused.value.code is Code.QUEUE_FULL
    assert refused.value.retry_after_s
    assert len(drained(queue)) == limit


def test_the_wait_is_foreseen_from_the_starts_of_late_and_can_be_compared() -> None:
    queue = queue_of(100)
    for number in range(20):
        push(queue, str(number))
    assert queue.eta_s(1, 0.0) is None
    for second in range(1, 6):
        following(queue, 2.0 * second)
    assert queue.eta_s(3, 10.0) == pytest.approx(6.0)
    position, _ = push(queue, "asked", 10.0)
    foreseen_s = queue.eta_s(position, 10.0)
    wait = None
    now = 10.0
    while wait is None or wait.item.id != "asked":
        now += 2.0
        wait = following(queue, now)
    assert foreseen_s == pytest.approx(now - wait.since)


def test_when_to_come_again_is_foreseen_from_the_starts_of_late() -> None:
    queue = queue_of(100)
    assert (queue.room_s(0.0), queue.quiet_s(0.0)) == (1.0, 5.0)
    for number in range(9):
        push(queue, str(number))
    for second in range(1, 6):
        following(queue, 2.0 * second)
    assert len(queue) == 4
    assert queue.room_s(10.0) == pytest.approx(2.0)
    assert queue.quiet_s(10.0) == pytest.approx(8.0)
    assert queue.quiet_s(10.0, leaving=3) == pytest.approx(2.0)
    assert queue.quiet_s(10.0, leaving=4) == pytest.approx(2.0)
    for number in range(9, 20):
        push(queue, str(number))
    assert queue.quiet_s(10.0) == 10.0  # by then all have left


def test_nobody_is_told_to_come_again_sooner_than_is_worth_it() -> None:
    queue = queue_of(100)
    for number in range(9):
        push(queue, str(number))
    for step in range(1, 6):
        following(queue, 0.01 * step)
    assert (queue.room_s(0.05), queue.quiet_s(0.05)) == (1.0, 1.0)


def test_the_wait_that_is_foreseen_grows_while_nobody_starts() -> None:
    queue = queue_of(100)
    for number in range(20):
        push(queue, str(number))
    for second in range(1, 6):
        following(queue, 1.0 * second)
    waits = [queue.eta_s(1, now) or 0.0 for now in (5.0, 60.0, 600.0)]
    assert waits == sorted(set(waits))


def test_the_estimate_begins_anew_when_the_queue_was_empty() -> None:
    queue = queue_of(100)
    for number in range(6):
        push(queue, str(number))
        following(queue, float(number))
    assert queue.eta_s(1, 6.0) is None


def test_sheddable_ones_that_cannot_be_in_time_are_given_back_once() -> None:
    queue: Queue[Item] = Queue(FairHeadroom(), limit=9, timeout_s=60)
    terms = Terms(ttft_s=5.0, sheddable=True)
    push(queue, "a", 0.0, terms=terms)
    push(queue, "b", 3.0, terms=terms)
    assert queue.expired(1.0) == []
    assert queue.expired(6.0) == [Item("a")]
    assert queue.expired(6.0) == []
    assert drained(queue, 6.0) == ["b"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["push", "rejoin", "next", "remove", "first", "expired"]),
            st.sampled_from(list(Overflow)),
            st.booleans(),
            st.floats(),
        ),
        max_size=80,
    ),
    st.sampled_from([Fcfs, FairHeadroom]),
)
def test_nobody_is_lost_or_served_twice(
    steps: list[tuple[str, Overflow, bool, float]], make: type[Fcfs] | type[FairHeadroom]
) -> None:
    queue: Queue[Item] = Queue(make(), limit=4, timeout_s=10)
    inside: set[str] = set()
    for number, (step, overflow, sheddable, now) in enumerate(steps):
        item = Item(str(number))
        ticket = Ticket(item.id, Terms(sheddable=sheddable), arrived_at=now)
        if step == "push":
            try:
                position, gave_way = queue.push(item, ticket, now, overflow)
            except HeadraceError:
                continue
            assert position > 0
            inside.add(item.id)
            if gave_way is not None:
                inside.remove(gave_way.id)
        elif step == "rejoin":
            queue.rejoin(item, ticket, now, now)
            inside.add(item.id)
        elif step == "next":
            first, wait = queue.first(now), following(queue, now)
            assert (wait.item if wait else None) == first
            if wait:
                inside.remove(wait.item.id)
        elif step == "remove" and inside:
            gone = Item(min(inside))
            inside.remove(gone.id)
            assert queue.remove(gone)
            assert not queue.remove(gone)
            assert queue.serve(gone, now) is None
        elif step == "expired":
            for late in queue.expired(now):
                inside.remove(late.id)
        assert {one.id for one in queue.items()} == inside
        assert bool(inside) == (queue.first(now) is not None)
    left = drained(queue)
    assert len(left) == len(set(left))
    assert set(left) == inside
