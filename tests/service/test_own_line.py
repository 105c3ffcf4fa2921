"""An engine that takes a few more than it has slots for: who stands in its line is not stuck there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness
from tests.service.test_scheduling import ask, phases, tenants, tick

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.request import CONTINUE, Message
from headrace.domain.tenant import Tenant
from headrace.engines.engine import Outcome, Run, Sink, Work
from headrace.engines.script import Script
from headrace.engines.scripted import ScriptedEngine
from headrace.giving_way import line_at
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.queue import Queue

SLOTS = 2
LONG = Script(WORDS, when="hello", repeat=30, delay_ms=5)
SILENT = Script(when="silence", hang_after=0)


class Line:
    """Put before an engine: what exceeds its slots begins when one is free, first come first served."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.infer = engine.stream_infer
        self.running: list[Seat] = []
        self.waiting: list[Seat] = []

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        seat = Seat(self, work, sink)
        self.waiting.append(seat)
        self.serve()
        return seat

    def serve(self) -> None:
        while self.waiting and len(self.running) < SLOTS:
            seat = self.waiting.pop(0)
            self.running.append(seat)
            seat.run = self.infer(seat.work, seat)

    def leave(self, seat: Seat) -> None:
        for seats in (self.running, self.waiting):
            if seat in seats:
                seats.remove(seat)
        self.serve()


class Seat:
    def __init__(self, line: Line, work: Work, sink: Sink) -> None:
        self.line, self.work, self.sink = line, work, sink
        self.run: Run | None = None

    def cancel(self) -> None:
        if self.run is not None:
            self.run.cancel()
        self.line.leave(self)

    def deltas(self, deltas: list[Delta]) -> None:
        self.sink.deltas(deltas)

    def prefill(self, done: int, total: int) -> None:
        self.sink.prefill(done, total)

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self.line.leave(self)
        self.sink.finished(outcome, deltas)

    def failed(self, error: HeadraceError) -> None:
        self.line.leave(self)
        self.sink.failed(error)


async def open_house(early: int = 1) -> House:
    known = tenants(Tenant(name="heavy"), Tenant(name="light", ttft_ms=5000.0))
    house = await House(LONG, SILENT, slots=SLOTS, tenants=known).open()
    house.flow.queue.policy = FairHeadroom(pressed=1.0)  # from the beginning, and for long
    engine: Any = house.engines[0]
    engine.stream_infer = Line(engine).stream_infer
    house.flow.model.replicas[0].places = SLOTS + early
    return house


@asynccontextmanager
async def pressed(
    heavies: int, early: int = 1, stays: bool = False
) -> AsyncIterator[tuple[House, list[Witness], Witness]]:
    """So many of ``heavy`` have come, of which each slot runs one, and then one of ``light``. ``early``: how many the
    engine takes beyond its slots; ``stays``: nobody that stands there then can be paused."""
    house = await open_house(early)
    heavy = [Witness(ask(house, "heavy"), client=False) for _ in range(heavies)]
    await heavy[1].token(4)
    for one in house.flow.running.values():
        if stays and one.place.early:
            one.said = None
    ticking = asyncio.create_task(tick(house))
    yield house, heavy, Witness(ask(house, "light"), client=False)
    ticking.cancel()
    await house.service.close(0.0)


def test_who_has_little_time_passes_the_engines_own_line(
    run: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    async def main() -> None:
        async with pressed(5) as (house, heavy, light):
            await light.token(1)
            assert not any(one.ended.is_set() for one in heavy)
            paused = [one for one in heavy if "paused" in phases(one)]
            assert len(paused) == 2  # the one in the line, and one of those with a slot
            assert {await one.whole() for one in (light, *heavy)} == {"".join(WORDS) * 30}
            assert house.in_use == 0
            assert house.flow.running == {}

    run(main())


def test_who_stands_in_the_line_itself_gets_a_slot_in_time(
    run: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    async def main() -> None:
        async with pressed(2) as (house, heavy, light):
            assert phases(light)[0] == "queued"
            await light.token(1)
            assert not any(one.ended.is_set() for one in heavy)
            assert sum("paused" in phases(one) for one in heavy) == 1
            assert {await one.whole() for one in (light, *heavy)} == {"".join(WORDS) * 30}
            assert house.in_use == 0

    run(main())


def test_who_stands_in_the_line_behind_another_passes_it(
    run: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    async def main() -> None:
        async with pressed(3, early=2) as (house, heavy, light):
            await light.token(1)
            assert not any(one.ended.is_set() for one in heavy)
            paused = [one for one in heavy if "paused" in phases(one)]
            assert len(paused) == 2
            assert heavy[2] in paused  # which stood before it
            assert {await one.whole() for one in (light, *heavy)} == {"".join(WORDS) * 30}
            assert house.in_use == 0

    run(main())


def test_a_slot_that_is_given_up_is_for_the_first_in_the_line(
    run: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    async def main() -> None:
        async with pressed(3, early=2, stays=True) as (house, heavy, light):
            await light.token(1)
            assert not any(one.ended.is_set() for one in heavy)
            assert ["paused" in phases(one) for one in heavy] == [True, True, False]
            assert {await one.whole() for one in (light, *heavy)} == {"".join(WORDS) * 30}
            assert house.in_use == 0

    run(main())


def test_nobody_is_paused_for_one_that_has_a_slot_and_is_silent(
    run: Callable[[Coroutine[Any, Any, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        house = await open_house(early=2)
        heavy = [Witness(ask(house, "heavy"), client=False) for _ in range(2)]
        await heavy[1].token(1)
        with monkeypatch.context() as soon:
            soon.setattr(Queue, "eta_s", lambda *_: 0.001)
            house.ask("silence", tenant="light", leaving=CONTINUE)
            heavy.append(Witness(ask(house, "heavy"), client=False))
            house.service.cancel(next(iter(house.flow.running.values())))
        house.service.tick(asyncio.get_running_loop().time())
        assert not any("paused" in phases(one) for one in heavy)
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("stood_in_line", [False, True])
def test_who_gets_a_prompt_gives_its_slot_to_the_first_in_the_line(
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    monkeypatch: pytest.MonkeyPatch,
    stood_in_line: bool,
) -> None:
    """That one computes then, though it is silent, and the prompted one stands behind it."""

    async def main() -> None:
        house = await open_house()
        asked = [ask(house, "heavy") for _ in range(2)]
        heavy = [Witness(one, client=False) for one in asked]
        await heavy[1].token(1)
        with monkeypatch.context() as soon:
            soon.setattr(Queue, "eta_s", lambda *_: 0.001)
            if stood_in_line:
                asked.append(ask(house, "heavy"))
                heavy.append(Witness(asked[2], client=False))
                house.service.cancel(asked[0])
                await heavy[2].token(1)
            silent: Any = house.ask("silence", tenant="light", leaving=CONTINUE)
            assert phases(Witness(silent, client=False)) == ["queued"]
            await house.service.prompt(asked[-1], Message("user", "more"))
            await asyncio.sleep(0)
        replica = house.flow.model.replicas[0]
        assert replica.early == 1
        assert line_at(replica, house.flow) == [asked[-1]]
        house.service.tick(asyncio.get_running_loop().time())
        assert not any("paused" in phases(one) for one in heavy)
        house.service.cancel(silent)
        assert {await one.whole() for one in heavy[-2:]} == {"".join(WORDS) * 30}
        assert house.in_use == 0

    run(main())


def test_who_stands_in_the_line_and_gets_a_prompt_stands_behind_all_others(
    run: Callable[[Coroutine[Any, Any, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(Queue, "eta_s", lambda *_: 0.001)
        house = await open_house(early=2)
        asked = [ask(house, "heavy") for _ in range(4)]
        heavy = [Witness(one, client=False) for one in asked]
        replica = house.flow.model.replicas[0]
        assert line_at(replica, house.flow) == [asked[2], asked[3]]
        await house.service.prompt(asked[2], Message("user", "more"))
        await asyncio.sleep(0)
        assert line_at(replica, house.flow) == [asked[3], asked[2]]
        assert {await one.whole() for one in heavy} == {"".join(WORDS) * 30}
        assert house.in_use == 0

    run(main())


def test_nobody_is_paused_where_a_slot_becomes_free_in_time(
    run: Callable[[Coroutine[Any, Any, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "eta_s", lambda *_: 0.001)

    async def main() -> None:
        async with pressed(4) as (_, heavy, light):
            assert {await one.whole() for one in (light, *heavy)} == {"".join(WORDS) * 30}
            assert not any("paused" in phases(one) for one in heavy)

    run(main())
