"""Models by name, and which replica gets the next run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request
from headrace.routing.model import Model, Models, Replica


@dataclass
class Info:
    slots: int
    early: int
    continues: bool = True


@dataclass
class Machine:
    slots: int
    early: int = 0
    state: str = "ready"

    def info(self) -> Any:
        return Info(self.slots, self.early)

    def health(self) -> tuple[str, str]:
        return self.state, "it is told so"

    def check(self, request: Request) -> None:
        return None


def replica(name: str, slots: int, early: int = 0) -> Replica[Machine]:
    made = Replica(name, Machine(slots, early))
    made.look(0.0)
    return made


def test_the_least_busy_replica_is_next() -> None:
    model = Model("m", (), [replica("a", 4), replica("b", 2)], 0)
    taken = [place.replica.name for _ in range(6) if (place := model.place(1))]
    assert sorted(taken) == ["a", "a", "a", "a", "b", "b"]
    assert model.place(1) is None


def test_an_engine_gets_as_many_early_as_it_wants_once_no_other_has_a_slot() -> None:
    model = Model("m", (), [replica("a", 2, early=1), replica("b", 1)], 0)
    taken = [(place.replica.name, place.early) for _ in range(4) if (place := model.place(1))]
    assert taken == [("a", 0), ("b", 0), ("a", 0), ("a", 1)]
    assert model.place(1) is None
    assert model.replicas[0].slots == 2
    whole = Model("m", (), [replica("a", 2, early=1)], 0)
    assert whole.place(9) is not None
    assert whole.place(2) is None  # it waits for slots of its own
    assert whole.place(1) is not None


def test_a_freed_slot_is_given_again_and_freed_only_once() -> None:
    model = Model("m", (), [replica("a", 1)], 0)
    place = model.place(1)
    assert place is not None
    assert model.place(1) is None
    place.free()
    place.free()
    assert model.replicas[0].in_use == 0
    assert model.place(1) is not None


def test_more_choices_than_slots_take_a_whole_replica() -> None:
    model = Model("m", (), [replica("a", 2)], 0)
    place = model.place(5)
    assert place is not None
    assert model.replicas[0].in_use == 2
    assert model.place(1) is None


def test_a_replica_that_is_down_gets_nothing_and_the_reason_is_told() -> None:
    down = Replica("a", Machine(4, state="starting"))
    model = Model("m", (), [down], 0)
    assert model.place(1) is None
    assert model.readiness() == (False, "model m is starting: it is told so")


def test_models_are_found_by_alias_and_an_unknown_name_says_what_there_is() -> None:
    models = Models([Model("m", ("gpt-4o",), [replica("a", 1)], 0)])
    assert models.find("gpt-4o").name == "m"
    with pytest.raises(HeadraceError) as unknown:
        models.find("n")
    assert unknown.value.code is Code.MODEL_NOT_FOUND
    assert unknown.value.param == "model"
    assert "m" in unknown.value.message


def test_a_replica_that_computes_nothing_is_left_alone_for_longer_each_time() -> None:
    one = replica("a", 1)
    pauses, now = [], 100.0
    for _ in range(8):
        one.lost(now)
        assert not one.ready
        one.lost(now)  # another run of the same moment says nothing new
        since = now
        while not one.look(now):
            now += 0.01
        pauses.append(round(now - since, 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    now += 60
    one.lost(now)
    assert not one.look(now + 0.05)
    assert one.look(now + 0.15)


def test_a_replica_that_came_back_gets_work_at_once() -> None:
    one = replica("a", 1)
    one.lost(0.0)
    one.engine.state = "starting"
    assert not one.look(0.01)
    one.engine.state = "ready"
    assert one.look(0.02)
