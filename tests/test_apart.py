"""Rows of jobs have an engine of their own while there are some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.apart import Apart
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import CONTINUE, Caller, Message, Request, Sampling, Urgency
from headrace.engines.lazy import LazyEngine
from headrace.engines.script import Script
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions
from headrace.flow import Flow
from headrace.protocols.port import Generation
from headrace.routing.model import Model, Replica
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.queue import Queue
from tests.service.house import House, Witness

Run = Callable[[Any], Any]
HANGS = Script(("live ", "never"), hang_after=1)
ROW = Script(("row",))


class Failing(ScriptedEngine):
    async def load(self) -> None:
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, "no memory")


class Broken(ScriptedEngine):
    async def load(self) -> None:
        raise RuntimeError("not foreseen")


class Two(House):
    """Its model's engine has one slot and never ends; rows have another."""

    def __init__(self, kind: type[ScriptedEngine] = ScriptedEngine, idle_s: float = 60.0) -> None:
        self.built: list[ScriptedEngine] = []
        self.told: asyncio.Queue[str] = asyncio.Queue()

        def build() -> ScriptedEngine:
            self.built.append(kind(ScriptedOptions("m", (ROW,), 2)))
            return self.built[-1]

        def apart(flow: Flow) -> None:
            engine = LazyEngine(build)
            replica: Replica[Any] = Replica("m (jobs)", engine)
            model: Model[Any] = Model("m", (), [replica], 0)
            queue: Queue[Any] = Queue(FairHeadroom(), 100, 100.0)
            self.rows = Flow(model, queue, flow.meters, None)
            self.apart = Apart(
                self.rows, engine, flow, self.told.put_nowait, look_s=0.005, idle_s=idle_s
            )
            flow.apart = self.apart

        super().__init__(HANGS, slots=1, prepare=apart)

    def row(self) -> Generation:
        request = Request("m", "chat", (Message("user", "hi"),), sampling=Sampling(), stream=True)
        caller = Caller(leaving=CONTINUE, urgency=Urgency(spare=True))
        return self.service.submit(request, caller, "native", {})

    async def ticking(self) -> None:
        while True:
            self.service.tick(asyncio.get_running_loop().time())
            await asyncio.sleep(0.002)


async def within(house: Two, work: Any) -> None:
    await house.open()
    tasks = [asyncio.create_task(one) for one in (house.ticking(), house.apart.run())]
    try:
        await work
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await house.service.close(0)


def test_rows_run_beside_who_has_all_slots_and_take_none(run: Run) -> None:
    async def main() -> None:
        house = Two()

        async def work() -> None:
            live = Witness(house.ask())
            await live.token(1)
            assert await Witness(house.row(), client=False).whole() == "row"
            assert house.flow.model.replicas[0].in_use == 1
            later = Witness(house.ask())
            assert await Witness(house.row(), client=False).whole() == "row"
            assert not later.tokens
            assert len(house.built) == 1

        await within(house, work())

    run(main())


def test_their_engine_is_unloaded_when_no_row_comes_and_loaded_again_for_the_next(run: Run) -> None:
    async def main() -> None:
        house = Two(idle_s=0.01)

        async def work() -> None:
            assert not house.built
            for count in (1, 2):
                assert await Witness(house.row(), client=False).whole() == "row"
                assert len(house.built) == count
                assert [await house.told.get() for _ in range(2)] == ["loaded", "unloaded"]
                assert house.built[-1].health()[0] == "closed"

        await within(house, work())

    run(main())


def test_where_it_cannot_be_loaded_rows_go_where_all_go(run: Run) -> None:
    async def main() -> None:
        house = Two(Failing)

        async def work() -> None:
            first = Witness(house.row(), client=False)
            await first.ended.wait()
            assert first.code == "engine_unavailable"  # its job asks again
            again = Witness(house.row(), client=False)
            await again.token(1)
            assert again.tokens == ["live "]

        await within(house, work())

    run(main())


def test_as_many_rows_are_under_way_as_their_own_engine_takes(run: Run) -> None:
    async def main() -> None:
        house = Two()

        async def work() -> None:
            assert house.service.rows_at_once("alias") == ("m", 1)
            await Witness(house.row(), client=False).ended.wait()
            assert house.service.rows_at_once("m") == ("m", 2)

        await within(house, work())

    run(main())


def test_once_their_own_engine_is_gone_as_many_are_under_way_as_the_models_takes(
    run: Run,
) -> None:
    async def main() -> None:
        house = Two(idle_s=0.01)

        async def work() -> None:
            await Witness(house.row(), client=False).ended.wait()
            assert [await house.told.get() for _ in range(2)] == ["loaded", "unloaded"]
            house.service.tick(0.0)
            assert house.service.rows_at_once("m") == ("m", 1)

        await within(house, work())

    run(main())


def test_the_server_goes_on_when_it_fails_in_an_unforeseen_way(run: Run) -> None:
    async def main() -> None:
        house = Two(Broken)

        async def work() -> None:
            first = Witness(house.row(), client=False)
            await first.ended.wait()
            again = Witness(house.row(), client=False)
            await again.token(1)
            assert again.tokens == ["live "]

        await within(house, work())

    run(main())
