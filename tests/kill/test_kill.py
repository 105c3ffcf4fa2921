"""No kill loses an event or repeats one. The long campaign is ``make kill-test``."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.kill.arena import Answer, faults, log_faults
from tests.kill.campaign import CELLS, Round, plan_of
from tests.kill.scenes import Embedded, Scripted


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", [Scripted, Embedded])
def test_witnesses_see_every_event_once_whoever_is_killed(
    scene: type[Scripted] | type[Embedded], tmp_path: Path
) -> None:
    seed = random.SystemRandom().randint(1, 10**6)
    chance = random.Random(seed)
    one = Round(scene(), tmp_path, chance)
    plan = plan_of(chance, one.scene, kills=2)
    assert (seed, one.play(plan)) == (seed, [])
    assert one.tally


def _log(texts: list[str], tokens: int = 3) -> list[dict[str, Any]]:
    events = [
        {"seq": place, "type": "token", "payload": {"text": text}}
        for place, text in enumerate(texts, 1)
    ]
    usage = {"usage": {"completion_tokens": tokens}}
    return [*events, {"seq": len(texts) + 1, "type": "finish", "payload": usage}]


def test_the_comparison_finds_a_lost_a_repeated_and_a_changed_event() -> None:
    expected = Answer("abc", 3)
    whole = _log(["a", "b", "c"])
    assert log_faults(whole, expected) == []
    assert log_faults(whole[:1] + whole[2:], expected)
    assert log_faults(whole[:2] + whole[1:], expected)
    assert log_faults(_log(["a", "b", "d"]), expected)
    assert log_faults(_log(["a", "b", "c"], tokens=4), expected)
    assert log_faults(whole[:-1], expected)


class _Seen:
    """A witness that wrote these rows down."""

    path = Path("witness")

    def __init__(self, form: str, rows: list[dict[str, Any]]) -> None:
        self.form = form
        self._rows = rows

    def rows(self) -> list[dict[str, Any]]:
        return [{"generation": "gen_1"}, *self._rows]


class _Served:
    def __init__(self, log: list[dict[str, Any]]) -> None:
        self._log = log

    def log_of(self, _: str) -> list[dict[str, Any]]:
        return self._log


def test_the_comparison_finds_what_a_witness_lost_or_saw_twice() -> None:
    log = _log(["a", "b", "c"])
    rows = [{"id": str(event["seq"]), "data": json.dumps(event)} for event in log]
    changed = {"id": "2", "data": json.dumps(log[1] | {"timestamp": 1.0})}

    def wrong(*seen: dict[str, Any]) -> list[str]:
        witness: Any = _Seen("native", list(seen))
        server: Any = _Served(log)
        return faults(witness, server, Answer("abc", 3))

    assert wrong(*rows) == []
    assert wrong(rows[0], *rows[2:])
    assert wrong(rows[0], *rows)
    assert wrong(*rows[:-1])
    assert wrong(rows[0], changed, *rows[2:])


def test_every_cell_of_the_plan_can_be_drawn() -> None:
    for scene in (Scripted(), Embedded()):
        drawn = set(plan_of(random.Random(1), scene, 2000))
        assert drawn == {cell for cell in CELLS if cell[0] in scene.weights}
