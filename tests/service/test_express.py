"""Whose first token is due while others have the slots gets one beside them, and nobody is paused for it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness
from tests.service.test_own_line import Line
from tests.service.test_scheduling import ask, phases, tenants, tick

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tenant import Tenant
from headrace.engines.lazy import LazyEngine
from headrace.engines.script import Script
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions
from headrace.express import ALL, HERE, Express
from headrace.flow import Flow
from headrace.routing.model import Replica
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.recent import Recent
from headrace.scheduling.ticket_heap import SLACK

Main = Callable[[Coroutine[Any, Any, Any]], Any]
SLOTS = 2
EXPRESS_SLOTS = 1
LONG = Script(WORDS, when="hello", repeat=12, delay_ms=5)
TEXT = "".join(WORDS) * 12


class Failing(ScriptedEngine):
    async def load(self) -> None:
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, "no memory")


class Loading(ScriptedEngine):
    """Has not loaded when it is closed."""

    async def load(self) -> None:
        self.closed = asyncio.Event()
        await self.closed.wait()
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, "The engine was closed.")

    async def close(self) -> None:
        self.closed.set()


class Holding:
    """A hook that holds ends back until :attr:`let` is set."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def on_finish(self, context: Any, end: Any) -> Sequence[Delta]:
        await self.let.wait()
        return ()


class Beside:
    """A house with an engine beside its own; what is said of that; how often it was built."""

    def __init__(
        self,
        kind: type[ScriptedEngine] = ScriptedEngine,
        script: Script = LONG,
        hooks: Sequence[Any] = (),
        slots: int = SLOTS,
    ) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.kind, self.script = kind, script
        self.engines: list[ScriptedEngine] = []
        light, other = (Tenant(name=name, ttft_ms=5000.0) for name in ("light", "other"))
        known = tenants(Tenant(name="heavy"), light, other)
        self.house = House(LONG, slots=slots, tenants=known, hooks=hooks, prepare=self._prepare)
        self.house.flow.queue.policy = FairHeadroom(pressed=1.0)  # from the beginning

    def _build(self) -> ScriptedEngine:
        self.engines.append(self.kind(ScriptedOptions("m", (self.script,), EXPRESS_SLOTS)))
        return self.engines[-1]

    def _prepare(self, flow: Flow) -> None:
        engine = LazyEngine(self._build)
        self.replica: Replica[Any] = Replica("m (express)", engine)
        self.express = Express(
            self.replica, engine, flow, self.told.put_nowait, look_s=0.005, idle_s=60.0, delay_s=0.0
        )
        flow.express = self.express

    @asynccontextmanager
    async def open(self, *, loaded: bool = True) -> AsyncIterator[House]:
        await self.house.open()
        self.running = asyncio.create_task(self.express.run())
        tasks = [asyncio.create_task(tick(self.house)), self.running]
        if loaded:
            self.express.wanted()
            assert await self.told.get() == "loaded"
            self.house.service.tick(0.0)
        try:
            yield self.house
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.house.service.close(0.0)


async def heavies(house: House, count: int) -> list[Witness]:
    """So many of one tenant, of which as many run as there are slots; it had much before."""
    express: Any = house.flow.express
    express._recent.add("heavy", 1e6, time.monotonic())
    express._places.add(ALL, 1e6, time.monotonic())
    heavy = [Witness(ask(house, "heavy"), client=False) for _ in range(count)]
    await heavy[1].token(4)
    return heavy


def test_who_is_short_of_time_runs_beside_those_who_have_the_slots(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 4)
            light = Witness(ask(house, "light"), client=False)
            assert beside.replica.in_use == 1
            await light.token(1)
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}
            assert not any("paused" in phases(one) for one in heavy)
            assert beside.replica.in_use == house.in_use == 0
            assert house.flow.running == {}

    run(main())


def test_who_has_its_share_that_way_waits_for_a_slot(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 2)
            first, second = (Witness(ask(house, "light"), client=False) for _ in range(2))
            await first.token(1)
            assert not second.tokens
            assert {await one.whole() for one in (first, second, *heavy)} == {TEXT}
            assert not any("paused" in phases(one) for one in heavy)

    run(main())


def test_who_found_it_full_gets_the_place_that_is_given_back(run: Main) -> None:
    async def main() -> None:
        beside = Beside(script=Script(("short",)))
        async with beside.open() as house:
            heavy = await heavies(house, 6)
            house.flow.keeps_raw = False  # nobody can be paused
            asked = [ask(house, name) for name in ("light", "other")]
            assert list(beside.express.missed) == asked[1:]
            for one in asked:
                assert await Witness(one, client=False).whole() == "short"
            assert not any(one.ended.is_set() for one in heavy)
            assert not beside.express.missed

    run(main())


def test_nobody_goes_there_while_all_are_of_one_tenant(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 4)
            assert beside.replica.in_use == 0
            assert {await one.whole() for one in heavy} == {TEXT}

    run(main())


def test_what_ran_while_nobody_waited_was_asked_for_too(run: Main) -> None:
    async def main() -> None:
        beside = Beside(script=Script(("short",)))
        async with beside.open() as house:
            for _ in range(4):
                one = ask(house, "heavy")
                await Witness(one, client=False).token(1)
                house.service.cancel(one)
            for _ in range(SLOTS):
                await Witness(ask(house, "heavy"), client=False).token(1)
            assert not house.flow.queue.waiting
            light = ask(house, "light")
            assert beside.replica.in_use == 1
            assert await Witness(light, client=False).whole() == "short"

    run(main())


def test_who_asks_for_as_much_as_others_does_not_go_there(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 2)
            beside.express._recent.add("light", 1e6, time.monotonic())
            light = Witness(ask(house, "light"), client=False)
            await light.token(1)
            assert beside.replica.in_use == 0
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}

    run(main())


def test_who_asked_for_as_much_goes_there_while_another_has_five_times_as_many(run: Main) -> None:
    async def main() -> None:
        beside = Beside(slots=4)
        async with beside.open() as house:
            heavy = await heavies(house, 5)
            beside.express._recent.add("light", 1e6, time.monotonic())
            light, second = (Witness(ask(house, "light"), client=False) for _ in range(2))
            assert beside.replica.in_use == 1
            assert {await one.whole() for one in (light, second, *heavy)} == {TEXT}

    run(main())


def test_who_asked_for_as_much_does_not_while_another_has_four_times_as_many(run: Main) -> None:
    async def main() -> None:
        beside = Beside(slots=4)
        async with beside.open() as house:
            heavy = await heavies(house, 4)
            beside.express._recent.add("light", 1e6, time.monotonic())
            light = Witness(ask(house, "light"), client=False)
            assert beside.replica.in_use == 0
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}

    run(main())


def test_its_own_that_wait_are_counted_too(run: Main) -> None:
    async def main() -> None:
        beside = Beside(slots=4)
        async with beside.open() as house:
            heavy = await heavies(house, 6)
            for one in house.flow.running.values():  # nobody gives way
                one.said = None
            beside.express._recent.add("light", 1e6, time.monotonic())
            beside.replica.in_use = EXPRESS_SLOTS
            waits = [ask(house, "light") for _ in range(2)]
            assert [one.place for one in waits] == [None, None]
            beside.replica.in_use = 0
            house.service.tick(asyncio.get_running_loop().time())
            assert beside.replica.in_use == 0
            light = [Witness(one, client=False) for one in waits]
            assert {await one.whole() for one in (*light, *heavy)} == {TEXT}

    run(main())


def test_what_runs_for_long_counts_for_the_quarter(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 2)
            express: Any = beside.express
            express._places = Recent()  # all forgotten
            express._places.add(HERE, 1.0, time.monotonic())
            light = Witness(ask(house, "light"), client=False)
            assert beside.replica.in_use == 1
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}

    run(main())


def test_no_more_than_a_quarter_of_all_goes_there(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 4)
            beside.express._places.add(HERE, 0.26e6, time.monotonic())
            light = Witness(ask(house, "light"), client=False)
            assert beside.replica.in_use == 0
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}

    run(main())


def test_what_begins_there_is_counted_there(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            await heavies(house, 4)
            places: Any = beside.express._places
            await Witness(ask(house, "light"), client=False).token(1)
            assert beside.replica.in_use == 1
            here, everything = (places._known[name][0] for name in (HERE, ALL))
            assert 0 < here < everything - 1e6

    run(main())


def test_who_has_time_waits_for_its_turn(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            house.flow.queue.policy = FairHeadroom(pressed=0.0)
            await heavies(house, 2)
            Witness(ask(house, "light"), client=False)
            assert beside.replica.in_use == 0
            assert len(house.flow.queue) == 1

    run(main())


def test_it_is_loaded_when_two_tenants_meet_and_until_then_a_slot_is_taken(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open(loaded=False) as house:
            heavy = await heavies(house, 2)
            assert not beside.engines
            light = Witness(ask(house, "light"), client=False)
            await light.token(1)
            assert sum("paused" in phases(one) for one in heavy) == 1
            assert await beside.told.get() == "loaded"
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}

    run(main())


def test_without_memory_for_it_a_slot_is_taken(run: Main) -> None:
    async def main() -> None:
        beside = Beside(Failing)
        async with beside.open(loaded=False) as house:
            heavy = await heavies(house, 2)
            for _ in range(2):
                light = Witness(ask(house, "light"), client=False)
                await light.token(1)
                assert await light.whole() == TEXT
            assert {await one.whole() for one in heavy} == {TEXT}
            assert len(beside.engines) == 1

    run(main())


def test_a_server_that_stops_while_it_loads_says_so_and_does_not_begin_again(
    run: Main, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        beside = Beside(Loading)
        async with beside.open(loaded=False) as house:
            await heavies(house, 2)
            beside.express.wanted()
            while not beside.engines:  # noqa: ASYNC110  (nothing announces it)
                await asyncio.sleep(0)
            await beside.express.close()
            beside.express.wanted()
            await asyncio.wait_for(beside.running, 10)
            assert len(beside.engines) == 1

    with caplog.at_level("INFO", "headrace.service"):
        run(main())
    said = [(one.levelname, one.message) for one in caplog.records if "beside" in one.message]
    assert said == [("INFO", "the engine beside m is not loaded: the server stops")]
    assert not any(one.levelname == "WARNING" for one in caplog.records)


def test_what_broke_there_goes_on_among_the_others(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open() as house:
            heavy = await heavies(house, 2)
            light = Witness(ask(house, "light"), client=False)
            await light.token(3)
            await beside.engines[0].close()
            assert {await one.whole() for one in (light, *heavy)} == {TEXT}
            assert beside.replica.in_use == 0

    run(main())


def test_who_is_over_is_not_kept_until_it_would_have_had_to_hurry(run: Main) -> None:
    async def main() -> None:
        beside = Beside()
        async with beside.open(loaded=False) as house:
            house.flow.queue.policy = FairHeadroom(pressed=0.5, targets_s={"standard": 3000.0})
            await heavies(house, 2)
            kept = []
            for _ in range(3 * SLACK):
                waits: Any = ask(house, "heavy")
                assert waits.state == "queued"
                house.service.cancel(waits)
                kept.append(weakref.ref(waits))
            gc.collect()
            assert sum(one() is not None for one in kept) <= SLACK + 2  # its queue has some

    run(main())


def test_who_stands_in_the_engines_own_line_is_not_counted_twice(run: Main) -> None:
    async def main() -> None:
        beside = Beside(slots=5)
        async with beside.open() as house:
            engine: Any = house.engines[0]
            engine.stream_infer = Line(engine).stream_infer
            house.flow.model.replicas[0].places = 6
            heavy = await heavies(house, 5)
            for one in house.flow.running.values():  # nobody gives way
                one.said = None
            beside.express._recent.add("light", 1e6, time.monotonic())
            beside.replica.in_use = EXPRESS_SLOTS
            light: Any = ask(house, "light")
            assert light.place.early
            beside.replica.in_use = 0
            house.service.tick(asyncio.get_running_loop().time())
            assert light.place.replica is beside.replica
            assert {await one.whole() for one in (Witness(light, client=False), *heavy)} == {TEXT}

    run(main())


def test_who_is_ending_in_the_engines_own_line_is_not_begun_elsewhere(run: Main) -> None:
    async def main() -> None:
        hook = Holding()
        beside = Beside(hooks=[hook])
        async with beside.open() as house:
            engine: Any = house.engines[0]
            engine.stream_infer = Line(engine).stream_infer
            house.flow.model.replicas[0].places = SLOTS + 1
            heavy = await heavies(house, 2)
            for one in house.flow.running.values():  # nobody gives way
                one.said = None
            beside.replica.in_use = EXPRESS_SLOTS
            light: Any = ask(house, "light")
            assert light.place.early
            light.fail(HeadraceError(Code.CANCELLED, "enough"))
            assert light.closing
            beside.replica.in_use = 0
            house.service.tick(asyncio.get_running_loop().time())
            assert beside.replica.in_use == 0
            hook.let.set()
            await Witness(light, client=False).ended.wait()
            assert {await one.whole() for one in heavy} == {TEXT}

    run(main())
