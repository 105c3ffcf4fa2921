"""The bounded first-in-first-out queue of a model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.scheduling.queue import Queue


@dataclass(frozen=True)
class Item:
    id: str


def test_items_leave_in_the_order_they_came() -> None:
    queue: Queue[Item] = Queue(limit=3, timeout_s=10)
    items = [Item(str(i)) for i in range(3)]
    assert [queue.push(item, 0.0) for item in items] == [1, 2, 3]
    assert [queue.next() for _ in range(4)] == [*items, None]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    queue: Queue[Item] = Queue(limit=1, timeout_s=10)
    queue.push(Item("a"), 0.0)
    with pytest.raises(HeadraceError) as refused:
        queue.push(Item("b"), 0.0)
    assert refused.value.code is Code.QUEUE_FULL
    assert refused.value.retry_after_s
    assert len(queue) == 1


def test_what_was_admitted_before_rejoins_at_the_front_even_when_full() -> None:
    queue: Queue[Item] = Queue(limit=1, timeout_s=10)
    queue.push(Item("a"), 0.0)
    queue.push_front(Item("moved"), 0.0)
    assert queue.next() == Item("moved")


def test_only_those_who_waited_too_long_are_overdue() -> None:
    queue: Queue[Item] = Queue(limit=5, timeout_s=10)
    queue.push(Item("early"), 0.0)
    queue.push(Item("late"), 5.0)
    assert queue.overdue(11.0) == [Item("early")]
    assert queue.items() == [Item("early"), Item("late")]


@given(st.lists(st.sampled_from(["push", "front", "next", "remove"]), max_size=60))
def test_nobody_is_lost_or_served_twice(steps: list[str]) -> None:
    queue: Queue[Item] = Queue(limit=8, timeout_s=10)
    inside: list[Item] = []
    for number, step in enumerate(steps):
        item = Item(str(number))
        if step == "push" and len(inside) < 8:
            queue.push(item, 0.0)
            inside.append(item)
        elif step == "front":
            queue.push_front(item, 0.0)
            inside.insert(0, item)
        elif step == "next":
            assert queue.next() == (inside.pop(0) if inside else None)
        elif step == "remove" and inside:
            gone = inside.pop(len(inside) // 2)
            assert queue.remove(gone)
            assert not queue.remove(gone)
    assert queue.items() == inside
