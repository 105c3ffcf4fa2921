from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.domain.errors import Code, HeadraceError
from headrace.telemetry.cache_look import CacheLook


class Engine:
    """Says what the test wants it to say; counts who asks and who was told."""

    def __init__(self, says: float | None) -> None:
        self.says = says
        self.down = False
        self.busy = True
        self.asked = 0
        self.told = 0
        self.look = CacheLook(self.answer, lambda: self.busy, self.known)

    async def answer(self) -> float | None:
        self.asked += 1
        if self.down:
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, "It is down.")
        return self.says

    def known(self) -> None:
        self.told += 1


Run = Callable[[Any], Any]


def test_an_engine_at_work_is_asked_each_time(run: Run) -> None:
    engine = Engine(0.25)
    run(engine.look.look())
    assert engine.look.usage == 0.25
    engine.says = 0.5
    run(engine.look.look())
    assert (engine.look.usage, engine.asked, engine.told) == (0.5, 2, 1)


def test_an_engine_at_rest_is_left_in_peace_and_uses_nothing(run: Run) -> None:
    engine = Engine(0.25)
    run(engine.look.look())
    engine.busy = False
    run(engine.look.look())
    assert (engine.look.usage, engine.asked) == (0.0, 1)


def test_at_rest_it_is_asked_once_whether_it_says_anything(run: Run) -> None:
    engine = Engine(0.0)
    engine.busy = False
    run(engine.look.look())
    assert (engine.asked, engine.told) == (1, 1)


def test_an_engine_that_never_says_is_asked_once(run: Run) -> None:
    engine = Engine(None)
    assert engine.look.goes_on
    run(engine.look.look())
    assert not engine.look.goes_on
    assert engine.told == 0


def test_an_engine_that_is_down_uses_nothing_and_is_asked_again(run: Run) -> None:
    engine = Engine(0.75)
    engine.down = True
    run(engine.look.look())
    assert (engine.look.usage, engine.told, engine.look.goes_on) == (0.0, 0, True)
    engine.down = False
    run(engine.look.look())
    assert (engine.look.usage, engine.told) == (0.75, 1)
    engine.down = True
    run(engine.look.look())
    assert engine.look.usage == 0.0
