"""What policies know of those who run: no more than is true, and nothing that stays when they are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tests.service.house import WORDS, House, Witness
from tests.service.test_limits import limiting
from tests.service.test_scheduling import phases

from headrace.domain.errors import Code
from headrace.domain.limits import Limits
from headrace.engines.script import Script
from headrace.scheduling.fair_headroom import FairHeadroom

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def policy_of(house: House) -> FairHeadroom:
    policy = house.flow.queue.policy
    assert isinstance(policy, FairHeadroom)
    return policy


def test_prompts_that_are_over_are_ahead_of_nobody(run: Run) -> None:
    async def main() -> None:
        script = Script(WORDS, prefill=(1, 2, 3), prefill_ms=2, delay_ms=1)
        house = await House(script, slots=4).open()
        for _ in range(5):
            asked = [house.ask("word " * 4000, tenant=f"t{number}") for number in range(5)]
            for generation in asked:
                await Witness(generation).whole()
            assert policy_of(house)._predictors.ahead_s < 1e-9
        await house.service.close(0.0)

    run(main())


def test_an_answer_in_its_middle_or_without_a_reader_is_no_prefill(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, repeat=30, delay_ms=3), slots=2).open()
        streamed = Witness(house.ask("word " * 6000))
        house.ask("word " * 6000, stream=False)
        await streamed.token(3)
        waiting = Witness(house.ask("short"))
        assert policy_of(house)._predictors.ahead_s == 0
        await waiting.whole()
        await house.service.close(0.0)

    run(main())


def test_a_paced_answer_is_charged_like_any_other(run: Run) -> None:
    async def charged(pace: float | None) -> float:
        script = Script(tuple(f"{number} " for number in range(60)), delay_ms=1)
        limits = None if pace is None else limiting(Limits(pace=pace))
        house = await House(script, slots=1, limiting=limits).open()
        one = house.ask()
        reads, other = Witness(one), Witness(house.ask(tenant="other"))
        account = policy_of(house)._ledger.of(one.ticket)  # type: ignore[attr-defined]
        await reads.whole()
        counter: float = account.counter
        await other.whole()
        await house.service.close(0.0)
        return counter

    assert run(charged(200.0)) > 0.8 * run(charged(None))


def test_what_was_served_before_anybody_waited_is_no_speed(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, repeat=30, delay_ms=3), slots=2).open()
        running = [Witness(house.ask("word " * 3000)) for _ in range(2)]
        await running[1].token(20)
        Witness(house.ask())
        assert policy_of(house)._rate._amount == 0
        await running[0].whole()
        await house.service.close(0.0)

    run(main())


def test_who_wants_several_slots_has_nobody_paused_in_vain(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, repeat=20, delay_ms=3), slots=3).open()
        running = [Witness(house.ask(tenant="heavy")) for _ in range(3)]
        await running[2].token(2)
        several = Witness(house.ask(tenant="light", n=3))
        for reads in (*running, several):
            await reads.ended.wait()
        assert not any("paused" in phases(reads) for reads in running)
        await house.service.close(0.0)

    run(main())


def test_who_was_refused_by_an_engine_is_charged_nothing(run: Run) -> None:
    async def main() -> None:
        busy = Script(WORDS, when="busy", refuse=Code.RATE_LIMITED)
        house = await House(Script(WORDS, when="long", hang_after=1), busy, slots=2).open()
        running, waiting = house.ask("long"), house.ask("busy " * 4000, tenant="refused")
        reads = Witness(running)
        Witness(waiting)
        while house.flow.model.replicas[0].refusals < 3:
            house.service.tick(time.monotonic() + 5.0)
            await asyncio.sleep(0)
        account = policy_of(house)._ledger.of(waiting.ticket)  # type: ignore[attr-defined]
        assert account.counter < 1000
        for generation in (waiting, running):
            house.service.cancel(generation)
        await reads.ended.wait()
        await house.service.close(0.0)

    run(main())
