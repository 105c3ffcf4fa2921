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
    made.came_up()
    return made


def test_the_least_busy_replica_is_next() -> None:
    model = Model("m", (), [replica("a", 4), replica("b", 2)], 0)
    taken = [place.replica.name for _ in range(6) if (place := model.place(1))]
    assert sorted(taken) == ["a", "a", "a", "a", "b", "b"]
    assert model.place(1) is None


def test_an_engine_gets_as_many_early_as_it_wants_once_no_other_has_a_slot() -> None:
    model = Model("m", (), [replica("a", 2, early=1), replica("b", 1)], 0)
    taken = [place.replica.name for _ in range(4) if (place := model.place(1))]
    assert taken == ["a", "b", "a", "a"]
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
