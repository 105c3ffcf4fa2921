"""Which of those that wait run together, and when."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.domain.errors import Code, HeadraceError
from headrace.scheduling.batcher import Batch, Batcher, BatchOptions, BatchQueue, Entry
from headrace.scheduling.queue import Overflow

Names = Batcher[str]


def options(size: int = 4, **others: Any) -> BatchOptions:
    queue = BatchQueue(**others.pop("queue", {}))
    return BatchOptions(size, queue=queue, **others)


def add(batcher: Names, names: str, now: float = 0.0, **fields: Any) -> list[Entry[str]]:
    entries = [Entry(name, **{"key": None, **fields}) for name in names]
    for entry in entries:
        batcher.add(entry, now)
    return entries


def items(batch: Batch[str] | None) -> str:
    return "" if batch is None else "".join(entry.item for entry in batch.entries)


def decided(batcher: Names, now: float = 0.0) -> str:
    return items(batcher.decide(now).batch)


def busy(batcher: Names) -> Batch[str]:
    """With a run under way."""
    add(batcher, "*")
    batch = batcher.decide(0.0).batch
    assert batch is not None
    return batch


def test_an_idle_engine_starts_at_once_with_who_is_there() -> None:
    batcher: Names = Batcher(options())
    add(batcher, "a")
    assert decided(batcher) == "a"


def test_while_it_is_busy_the_others_gather() -> None:
    batcher: Names = Batcher(options())
    batch = busy(batcher)
    add(batcher, "abc")
    assert decided(batcher) == ""
    batcher.ended(batch, 1.0)
    assert decided(batcher, 1.0) == "abc"


def test_no_run_has_more_rows_than_it_may_and_the_rest_is_next() -> None:
    batcher: Names = Batcher(options(4))
    batch = busy(batcher)
    add(batcher, "ab", rows=2)
    add(batcher, "c", rows=3)
    batcher.ended(batch, 1.0)
    second = batcher.decide(1.0).batch
    assert second is not None
    assert (items(second), second.rows) == ("ab", 4)
    batcher.ended(second, 2.0)
    assert decided(batcher, 2.0) == "c"


def test_a_large_request_is_not_overtaken_by_small_ones_behind_it() -> None:
    batcher: Names = Batcher(options(4))
    batch = busy(batcher)
    add(batcher, "a", rows=2)
    add(batcher, "b", rows=3)
    add(batcher, "c", rows=1)
    batcher.ended(batch, 1.0)
    assert decided(batcher, 1.0) == "a"


@pytest.mark.parametrize("rows", [0, -1, 5])
def test_a_request_with_more_rows_than_a_run_is_refused(rows: int) -> None:
    batcher: Names = Batcher(options(4))
    with pytest.raises(HeadraceError, match="1 to 4") as refused:
        add(batcher, "a", rows=rows)
    assert refused.value.code is Code.INVALID_REQUEST
    assert not batcher.waiting


def test_keys_are_not_mixed_and_who_waited_longest_is_first() -> None:
    batcher: Names = Batcher(options())
    batch = busy(batcher)
    add(batcher, "a", key=1, now=0.1)
    add(batcher, "b", key=2, now=0.2)
    add(batcher, "c", key=1, now=0.3)
    batcher.ended(batch, 1.0)
    first = batcher.decide(1.0).batch
    assert items(first) == "ac"
    assert first is not None
    assert first.key == 1
    batcher.ended(first, 2.0)
    assert decided(batcher, 2.0) == "b"


def test_several_instances_run_at_once() -> None:
    batcher: Names = Batcher(options(2, instances=2))
    add(batcher, "abcde")
    assert [decided(batcher) for _ in range(3)] == ["ab", "cd", ""]


def test_who_is_more_urgent_goes_first_and_nobody_waits_for_ever() -> None:
    batcher: Names = Batcher(options(2))
    batch = busy(batcher)
    add(batcher, "ab", now=0.0)
    add(batcher, "c", now=1.0, priority=-1)
    add(batcher, "d", now=50.0, priority=-1)
    batcher.ended(batch, 50.0)
    assert decided(batcher, 50.0) == "ca"


def test_preferred_sizes_are_made_where_they_can_be() -> None:
    batcher: Names = Batcher(options(10, preferred=(4, 8)))
    batch = busy(batcher)
    add(batcher, "abcdefg")
    batcher.ended(batch, 1.0)
    four = batcher.decide(1.0).batch
    assert items(four) == "abcd"
    assert four is not None
    batcher.ended(four, 2.0)
    assert decided(batcher, 2.0) == "efg"


def test_who_is_late_is_told_and_not_run() -> None:
    batcher: Names = Batcher(options())
    batch = busy(batcher)
    add(batcher, "a", deadline=1.0)
    add(batcher, "b", deadline=2.0)
    assert batcher.decide(0.5).look_at == 1.0
    batcher.ended(batch, 1.5)
    decision = batcher.decide(1.5)
    assert [entry.item for entry in decision.late] == ["a"]
    assert items(decision.batch) == "b"


def test_a_deadline_that_has_passed_is_refused_at_once() -> None:
    batcher: Names = Batcher(options())
    for deadline in (0.9, math.nan):
        with pytest.raises(HeadraceError) as refused:
            add(batcher, "a", now=1.0, deadline=deadline)
        assert refused.value.code is Code.QUEUE_TIMEOUT


def test_nobody_waits_longer_than_the_queue_allows() -> None:
    batcher: Names = Batcher(options(queue={"timeout_s": 3.0}))
    busy(batcher)
    add(batcher, "a")
    assert batcher.decide(2.0).look_at == 3.0
    assert [entry.item for entry in batcher.decide(3.1).late] == ["a"]


def test_who_left_is_not_run() -> None:
    batcher: Names = Batcher(options())
    batch = busy(batcher)
    a, b = add(batcher, "ab")
    assert batcher.remove(a)
    assert not batcher.remove(a)
    batcher.ended(batch, 1.0)
    assert decided(batcher, 1.0) == "b"
    assert not batcher.remove(b)


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    batcher: Names = Batcher(options(queue={"limit": 2}))
    busy(batcher)
    add(batcher, "ab")
    with pytest.raises(HeadraceError) as refused:
        add(batcher, "c")
    assert refused.value.code is Code.QUEUE_FULL
    assert refused.value.retry_after_s
    assert batcher.waiting == 2


def test_how_many_may_wait_may_change_while_some_do() -> None:
    given = options(queue={"limit": 1})
    batcher: Names = Batcher(given)
    busy(batcher)
    add(batcher, "a")
    given.queue.limit = 2
    add(batcher, "b")
    with pytest.raises(HeadraceError):
        add(batcher, "c")


def test_one_that_is_more_urgent_takes_the_place_of_the_latest_that_is_least() -> None:
    batcher: Names = Batcher(options(queue={"limit": 4}))
    busy(batcher)
    add(batcher, "a", priority=1, sheddable=True)
    add(batcher, "bc", priority=2, sheddable=True)
    add(batcher, "d", priority=3)  # and may not be shed
    gave_way = batcher.add(Entry("e", None, overflow=Overflow.SHED), 1.0)
    assert gave_way is not None
    assert gave_way.item == "c"
    for refused in ({"priority": 2, "overflow": Overflow.SHED}, {"overflow": Overflow.REJECT}):
        with pytest.raises(HeadraceError):
            add(batcher, "f", **refused)


def test_who_waits_outside_does_not_give_way_as_that_makes_no_room() -> None:
    batcher: Names = Batcher(options(queue={"limit": 1}))
    busy(batcher)
    add(batcher, "a")
    add(batcher, "b", priority=9, sheddable=True, overflow=Overflow.WAIT)
    with pytest.raises(HeadraceError):
        add(batcher, "c", overflow=Overflow.SHED)


def test_who_would_spill_and_found_no_room_elsewhere_is_refused() -> None:
    batcher: Names = Batcher(options(queue={"limit": 1}))
    busy(batcher)
    assert not batcher.full
    add(batcher, "a")
    assert batcher.full
    with pytest.raises(HeadraceError):
        add(batcher, "b", overflow=Overflow.SPILL)


def test_others_wait_outside_until_there_is_room_and_no_more_than_fit_inside() -> None:
    batcher: Names = Batcher(options(2, queue={"limit": 3}))
    batch = busy(batcher)
    add(batcher, "abcdef", overflow=Overflow.WAIT)
    with pytest.raises(HeadraceError):
        add(batcher, "g", overflow=Overflow.WAIT)
    order = []
    for now in range(1, 4):
        batcher.ended(batch, now)
        following = batcher.decide(now).batch
        assert following is not None
        batch = following
        order.append(items(batch))
    assert order == ["ab", "cd", "ef"]


def test_who_waits_outside_has_a_deadline_as_well_and_may_leave() -> None:
    batcher: Names = Batcher(options(queue={"limit": 1}))
    batch = busy(batcher)
    add(batcher, "a")
    add(batcher, "b", deadline=1.0, overflow=Overflow.WAIT)
    assert [entry.item for entry in batcher.decide(1.5).late] == ["b"]
    (gone,) = add(batcher, "c", now=2.0, overflow=Overflow.WAIT)
    assert batcher.remove(gone)
    batcher.ended(batch, 3.0)
    assert decided(batcher, 3.0) == "a"
    assert batcher.decide(4.0).batch is None


def test_all_who_wait_are_told_when_it_closes() -> None:
    batcher: Names = Batcher(options())
    batch = busy(batcher)
    add(batcher, "ab", deadline=9.0)
    add(batcher, "c", deadline=5.0)
    assert [entry.item for entry in batcher.clear()] == ["a", "b", "c"]
    batcher.ended(batch, 1.0)
    assert batcher.decide(1.0) == (None, (), math.inf)


def among_returning(length: int = 0, **others: Any) -> tuple[Names, float]:
    """Clients that come back 0.1 ms after their answers, at an engine whose runs cost 4 ms beside their rows. Ten
    wait, ten of a run that is just over have not come back yet; the time of that."""
    batcher: Names = Batcher(options(64, **others))
    now = 0.0
    for size in (1, 9, 3, 20, 7, 12, *[10] * 20):
        add(batcher, "x" * size, now=now, length=length)
        decision = batcher.decide(now)
        assert decision.batch is not None
        now += 0.004 + 0.0005 * size
        batcher.ended(decision.batch, now)
        now += 0.0001
    add(batcher, "x" * 10, now=now, length=length)
    decision = batcher.decide(now)
    assert decision.batch is not None
    add(batcher, "y" * 10, now=now, length=length)
    batcher.ended(decision.batch, now + 0.009)
    return batcher, now + 0.009


def test_an_idle_engine_is_held_back_for_clients_that_come_back_at_once() -> None:
    batcher, now = among_returning()
    decision = batcher.decide(now)
    assert decision.batch is None
    assert now < decision.look_at <= now + 0.005
    assert decided(batcher, decision.look_at) == "y" * 10


def test_it_starts_when_all_are_back() -> None:
    batcher, now = among_returning()
    add(batcher, "z" * 9, now=now + 0.0001)
    assert decided(batcher, now + 0.0001) == ""
    add(batcher, "z", now=now + 0.0002)
    assert decided(batcher, now + 0.0002) == "y" * 10 + "z" * 10


def test_a_full_run_is_not_held_back() -> None:
    batcher, now = among_returning()
    (large,) = add(batcher, "z", now=now, rows=54)
    assert decided(batcher, now) == "y" * 10 + large.item


def test_nobody_is_late_for_those_who_come_back() -> None:
    batcher, now = among_returning()
    add(batcher, "z", now=now, deadline=now + 0.0005)
    assert decided(batcher, now) == "y" * 10 + "z"


def test_while_another_key_waits_there_is_enough_to_do() -> None:
    batcher, now = among_returning()
    add(batcher, "z", now=now, key="other")
    assert decided(batcher, now) == "y" * 10


def test_no_wait_is_no_wait() -> None:
    batcher, now = among_returning(max_wait_ms=0.0)
    assert decided(batcher, now) == "y" * 10


def run_of(batcher: Names, name: str, length: int, now: float, took_s: float) -> None:
    add(batcher, name, now, length=length, padding=0.2)
    decision = batcher.decide(now)
    assert decision.batch is not None
    assert (items(decision.batch), decision.batch.length) == (name, length)
    batcher.ended(decision.batch, now + took_s)


def of_lengths() -> tuple[Names, float]:
    """At an engine whose runs cost as much as seven elements beside their own; the time."""
    batcher: Names = Batcher(options(64))
    for number in range(40):
        length = (5, 40, 20, 80)[number % 4]
        run_of(batcher, "x", length, float(number), 0.001 * (length + 7))
    return batcher, 40.0


def test_rows_of_about_one_length_run_together_once_it_is_known_what_runs_cost() -> None:
    knows_nothing: Names = Batcher(options(64))
    for batcher, now, expected in ((knows_nothing, 0.0, "ad"), (of_lengths()[0], 40.0, "abd")):
        batch = busy(batcher)
        for name, length in zip("abcd", (20, 21, 60, 20), strict=True):
            add(batcher, name, now, length=length, padding=0.2)
        batcher.ended(batch, now, well=False)
        first = batcher.decide(now).batch
        assert first is not None
        assert items(first) == expected
        assert first.length == (21 if "b" in expected else 20)
        batcher.ended(first, now)
        following = batcher.decide(now).batch
        assert items(following) == ("b" if expected == "ad" else "c")


def test_padding_is_bounded_by_who_waited_longest() -> None:
    batcher, now = of_lengths()
    batch = busy(batcher)
    add(batcher, "a", now, length=20, padding=0.04)
    add(batcher, "b", now, length=22, padding=0.9)
    batcher.ended(batch, now, well=False)
    assert decided(batcher, now) == "a"


def test_runs_that_failed_or_pad_nothing_tell_nothing_of_what_padding_costs() -> None:
    batcher: Names = Batcher(options(64, max_wait_ms=0.0))
    for number in range(40):
        now, length = float(number), (5, 40, 20, 80)[number % 4]
        add(batcher, "x", now, length=length)
        failed = batcher.decide(now).batch
        assert failed is not None
        batcher.ended(failed, now + 0.001 * (length + 7), well=False)
        add(batcher, "x" * (1 + number % 4), now + 0.5)
        plain = batcher.decide(now + 0.5).batch
        assert plain is not None
        batcher.ended(plain, now + 0.501)
    add(batcher, "a", 50.0, length=20, padding=0.9)
    add(batcher, "b", 50.0, length=21, padding=0.9)
    assert decided(batcher, 50.0) == "a"


@pytest.mark.parametrize(("lengths", "took_s"), [([0] * 40, 0.5), ([5], 0.2)])
def test_neither_other_runs_nor_a_slow_one_make_far_lengths_run_together(
    lengths: list[int], took_s: float
) -> None:
    batcher, now = of_lengths()
    for length in lengths:
        now += 1.0
        run_of(batcher, "x", length, now, took_s)
    now += 1.0
    for name, length in zip("abb", (20, 60, 60), strict=True):
        add(batcher, name, now, length=length, padding=0.9)
    assert decided(batcher, now) == "a"


def test_while_rows_of_another_length_wait_there_is_enough_to_do() -> None:
    batcher, now = among_returning(length=9)
    assert batcher.decide(now).batch is None
    add(batcher, "z", now=now, length=500)
    assert decided(batcher, now) == "y" * 10


@pytest.mark.parametrize(
    "impossible",
    [
        BatchOptions(0),
        BatchOptions(4, instances=0),
        BatchOptions(4, preferred=(8,)),
    ],
)
def test_impossible_options_are_refused(impossible: BatchOptions) -> None:
    with pytest.raises(ValueError, match=r"must be|from 1"):
        Batcher(impossible)


class Machine(RuleBasedStateMachine):
    """Whatever happens in whatever order: everybody is run, refused, or has left, once."""

    LIMIT = 6
    SIZE = 5
    PADDING = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.batcher: Batcher[int] = Batcher(
            BatchOptions(
                self.SIZE,
                preferred=(2, 4),
                instances=2,
                queue=BatchQueue(self.LIMIT, timeout_s=20.0),
            )
        )
        self.waiting: list[Entry[int]] = []
        self.running: list[Batch[int]] = []
        self.started: list[Entry[int]] = []
        self.count = 0

    @rule(
        key=st.sampled_from("ab"),
        rows=st.integers(1, SIZE),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        left_s=st.one_of(st.just(math.inf), st.floats(0.0, 10.0)),
        overflow=st.sampled_from(Overflow),
        sheddable=st.booleans(),
        length=st.integers(1, 9),
        lacks=st.integers(0, 2),
    )
    def come(
        self,
        key: str,
        rows: int,
        priority: int,
        left_s: float,
        overflow: Overflow,
        sheddable: bool,
        length: int,
        lacks: int,
    ) -> None:
        self.count += 1
        entry = Entry(self.count, key, rows, priority, self.now + left_s, overflow, sheddable)
        if key == "b":
            entry.length, entry.padding = length, self.PADDING
            entry.own_padding = min(lacks, (rows - 1) * (length - 1))
        gave_way = None
        try:
            gave_way = self.batcher.add(entry, self.now)
        except HeadraceError:
            assert len(self.waiting) >= self.LIMIT
            return
        if gave_way is not None:
            assert gave_way.sheddable
            assert gave_way.priority > priority
            self.waiting.remove(gave_way)
        self.waiting.append(entry)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.batcher.remove(entry)
        self.waiting.remove(entry)

    @rule(passes_s=st.floats(0.0, 5.0))
    def pass_time(self, passes_s: float) -> None:
        self.now += passes_s

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.running.remove(batch)
        self.batcher.ended(batch, self.now, well=well)

    @rule()
    def decide(self) -> None:
        while True:
            decision = self.batcher.decide(self.now)
            for entry in decision.late:
                assert entry.deadline < self.now
                self.waiting.remove(entry)
            if decision.batch is None:
                break
            self.check(decision.batch)
        if self.waiting:
            assert self.now <= decision.look_at <= min(entry.deadline for entry in self.waiting)
        if len(self.running) < 2 and self.waiting:
            assert decision.look_at <= self.now + 0.005  # it is held back, and not for long

    def check(self, batch: Batch[int]) -> None:
        assert batch.rows == sum(entry.rows for entry in batch.entries) <= self.SIZE
        assert {entry.key for entry in batch.entries} == {batch.key}
        for entry in batch.entries:
            assert entry.deadline >= self.now
            self.waiting.remove(
                entry
            )  # who left or was refused is not in there, nor who ran before
        for entry in batch.entries:
            assert not any(
                other.number < entry.number
                and (other.key, other.priority, other.length)
                == (entry.key, entry.priority, entry.length)
                for other in self.waiting
            )
        elements = sum(entry.rows * entry.length - entry.own_padding for entry in batch.entries)
        padded = batch.rows * batch.length
        alone = len(batch.entries) == 1
        assert padded >= elements
        assert alone or padded - elements <= self.PADDING * padded
        assert batch.entries == sorted(
            batch.entries, key=lambda entry: (entry.since + 10.0 * entry.priority, entry.number)
        )
        self.running.append(batch)
        assert len(self.running) <= 2

    @invariant()
    def is_bounded(self) -> None:
        assert self.batcher.waiting <= self.LIMIT
        assert len(self.waiting) <= 2 * self.LIMIT

    def teardown(self) -> None:
        assert {entry.number for entry in self.batcher.clear()} == {
            entry.number for entry in self.waiting
        }


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_what_is_kept_of_those_that_left_is_bounded() -> None:
    batcher: Names = Batcher(options(queue={"limit": 8}))
    busy(batcher)
    add(batcher, "a")
    for _ in range(1000):
        (entry,) = add(batcher, "b")
        batcher.remove(entry)
    assert len(batcher._by_deadline) < 200
    assert len(batcher._groups[None].ranked) < 200
