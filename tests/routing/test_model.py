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


class Told:
    """A limit that is what it is told to be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: list[tuple[float, float, int]] = []
        self.refusals: list[int] = []

    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None:
        self.seen.append((prompt_tokens, took_s, in_flight))

    def refused(self, in_flight: int) -> None:
        self.refusals.append(in_flight)


def limited(limit: Told, says: int = 0) -> Replica[Machine]:
    made = Replica("a", Machine(says), limit)
    made.look(0.0)
    return made


def test_what_an_engine_does_not_say_its_limit_finds() -> None:
    limit = Told(2)
    one = limited(limit)
    model = Model("m", (), [one], 0)
    assert [place.early for _ in range(3) if (place := model.place(1))] == [0, 0]
    grown: list[int] = []
    one.on_room = lambda: grown.append(one.places)
    limit.limit = 3
    one.took(10, 0.5, 2)
    assert (limit.seen, grown, one.slots) == ([(10, 0.5, 2)], [3], 3)
    assert model.place(1) is not None
    limit.limit = 1  # three are there: nobody is early, and who leaves makes no room
    one.took(10, 0.5, 3)
    assert (grown, one.early, one.takes_another) == ([3], 0, False)
    assert model.place(1) is None


def test_an_engine_that_says_its_slots_is_believed() -> None:
    limit = Told(50)
    one = limited(limit, says=3)
    one.took(10, 0.5, 1)
    assert (one.slots, one.places, limit.seen) == (3, 3, [])


def test_the_share_of_a_limit_is_what_counts_between_replicas() -> None:
    model = Model("m", (), [limited(Told(4)), replica("b", 2)], 0)
    taken = [place.replica.name for _ in range(6) if (place := model.place(1))]
    assert sorted(taken) == ["a", "a", "a", "a", "b", "b"]


def test_an_upstream_without_room_gets_no_more_than_it_has_and_then_more_bit_by_bit() -> None:
    one = replica("a", 1000)
    model = Model("m", (), [one], 0)
    places = [place for _ in range(100) if (place := model.place(1))]
    for place in places[8:]:  # of a hundred together it took eight
        place.free()
        one.refused(50.0)
    assert (one.in_use, one.places, one.ready, one.refusals) == (8, 8, True, 92)
    assert model.place(1) is None
    assert not one.look(50.05)
    assert one.places == 8
    assert not one.look(50.1)
    assert one.places == 10
    looks, now = 0, 50.1
    while one.places < 1000:
        looks, now = looks + 1, now + 0.1
        one.look(now)
    assert looks < 60


def test_an_upstream_that_has_nothing_of_ours_and_no_room_rests_longer_each_time() -> None:
    one = replica("a", 4)
    pauses, now = [], 100.0
    for _ in range(7):
        one.refused(now)
        assert (one.ready, one.up) == (False, True)
        since = now
        while not one.ready:
            now += 0.01
            assert not one.look(now)  # it was up all the time
        pauses.append(round(now - since, 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_an_upstream_that_says_when_is_left_alone_until_then() -> None:
    one = replica("a", 4)
    model = Model("m", (), [one], 0)
    assert model.place(1) is not None
    one.refused(10.0, 7.0)
    assert model.readiness() == (True, "")
    one.look(16.9)
    assert model.place(1) is None
    one.look(17.0)
    assert model.place(1) is not None
    one.refused(20.0, 86_400.0)  # that is not waited for
    one.look(80.0)
    assert one.ready


def test_an_upstream_that_dies_while_it_rests_is_down() -> None:
    one = replica("a", 4)
    one.refused(10.0, 7.0)
    one.engine.state = "unreachable"
    assert one.look(11.0)
    assert not one.up
    one.engine.state = "ready"
    assert one.look(12.0)
    assert (one.ready, one.places) == (True, 4)


def test_a_limit_hears_of_what_was_refused_and_what_ends_makes_room() -> None:
    limit = Told(8)
    one = limited(limit)
    model = Model("m", (), [one], 0)
    places = [place for _ in range(3) if (place := model.place(1))]
    places[0].free()
    limit.limit = 2
    one.refused(10.0)
    assert (limit.refusals, one.places, one.ready) == ([2], 2, True)
    assert model.place(1) is None
    places[1].free()
    assert model.place(1) is not None
