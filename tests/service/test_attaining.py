"""Which targets were kept: counted once for each generation that had any and ended, and for no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.admission.limiter import Rules
from headrace.admission.tenants import Tenants
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.limits import Limits as UsageLimits
from headrace.domain.request import CANCEL, CONTINUE, Caller, Leaving, Message, Request, Urgency
from headrace.domain.tenant import Tenant
from headrace.engines.script import Script
from headrace.limiting import Limiting
from headrace.protocols.port import Generation
from headrace.service import Limits

Run = Callable[[Any], Any]
SLOW = Script(WORDS, delay_ms=2)
EASY_MS, HARD_MS = 60_000.0, 0.001
EASY, HARD = EASY_MS / 1000, HARD_MS / 1000
MISSED = {("app", "ttft", False): 1, ("app", "tpot", False): 1}


def ask(
    house: House,
    urgency: Urgency | None = None,
    *,
    tenant: str = "app",
    stream: bool = True,
    leaving: Leaving = CANCEL,
) -> Generation:
    request = Request("m", "chat", (Message("user", "hello"),), stream=stream)
    caller = Caller(tenant, leaving=leaving, urgency=urgency)
    return house.service.submit(request, caller, "native", {})


def promised(ttft_ms: float | None, tpot_ms: float | None) -> Tenants:
    tenants = Tenants()
    tenants.replace([Tenant(name="app", ttft_ms=ttft_ms, tpot_ms=tpot_ms)])
    return tenants


def counted(house: House) -> Mapping[tuple[str, str, bool], int]:
    return house.metrics.model("m").attainment


@pytest.mark.parametrize(
    ("ttft_ms", "tpot_ms", "urgency", "expected"),
    [
        (EASY_MS, EASY_MS, None, {("app", "ttft", True): 1, ("app", "tpot", True): 1}),
        (HARD_MS, HARD_MS, None, MISSED),
        (HARD_MS, None, None, {("app", "ttft", False): 1}),
        (None, EASY_MS, None, {("app", "tpot", True): 1}),
        (None, None, Urgency(EASY), {("app", "ttft", True): 1}),
        (HARD_MS, EASY_MS, Urgency(EASY), {("app", "ttft", True): 1, ("app", "tpot", True): 1}),
        (EASY_MS, EASY_MS, Urgency(None, HARD), {("app", "ttft", True): 1, ("app", "tpot", False): 1}),
        (None, None, None, {}),
        (None, None, Urgency(level="batch"), {}),
    ],
)  # fmt: skip
def test_a_target_is_the_requests_own_or_its_tenants(
    run: Run,
    ttft_ms: float | None,
    tpot_ms: float | None,
    urgency: Urgency | None,
    expected: dict[tuple[str, str, bool], int],
) -> None:
    async def main() -> None:
        house = await House(SLOW, tenants=promised(ttft_ms, tpot_ms)).open()
        await Witness(ask(house, urgency)).whole()
        await Witness(ask(house, tenant="another")).whole()
        assert counted(house) == expected
        assert house.metrics.model("m").first.count == 2
        assert house.metrics.model("m").gap.count == 2 * (len(WORDS) - 1)
        await house.service.close(0.0)

    run(main())


def test_nothing_is_noted_of_who_has_no_target(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, tenants=promised(EASY_MS, None)).open()
        other: Any = ask(house, tenant="another")
        assert other.watched is None
        assert other.meter is house.flow.meters["chat"]
        await house.service.close(0.0)

    run(main())


def test_an_answer_of_one_token_has_no_time_per_output_token(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS[:1]), tenants=promised(EASY_MS, EASY_MS)).open()
        await Witness(ask(house)).whole()
        assert counted(house) == {("app", "ttft", True): 1}
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize(
    ("leaving", "expected"),
    [(CANCEL, {}), (CONTINUE, {("app", "ttft", True): 1, ("app", "tpot", True): 1})],
)
def test_of_an_answer_that_comes_whole_nobody_knows_the_times(
    run: Run, leaving: Leaving, expected: dict[Any, int]
) -> None:
    async def main() -> None:
        house = await House(SLOW, tenants=promised(EASY_MS, EASY_MS)).open()
        await Witness(ask(house, stream=False, leaving=leaving)).whole()
        assert counted(house) == expected
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Script(WORDS, refuse=Code.INTERNAL), MISSED),
        (Script(WORDS, refuse=Code.RATE_LIMITED), MISSED),
        (
            Script(WORDS, fail_after=2, fail_code=Code.INTERNAL),
            {("app", "ttft", True): 1, ("app", "tpot", False): 1},
        ),
        (Script(WORDS, refuse=Code.CONTEXT_LENGTH), {}),
    ],
)
def test_what_fails_by_our_doing_has_missed_what_was_to_come(
    run: Run, script: Script, expected: dict[Any, int]
) -> None:
    async def main() -> None:
        house = await House(script, tenants=promised(EASY_MS, EASY_MS)).open()
        reads = Witness(ask(house))
        while not reads.ended.is_set():
            house.service.tick(time.monotonic() + 5.0)  # an engine that had no room is asked again
            await asyncio.sleep(0)
        assert counted(house) == expected
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("after", [0, 2])
def test_who_leaves_has_missed_nothing(run: Run, after: int) -> None:
    async def main() -> None:
        script = Script(WORDS, hang_after=2)
        house = await House(script, slots=1, tenants=promised(HARD_MS, HARD_MS)).open()
        generation = ask(house)
        reads = Witness(generation, client=False)
        client = Witness(generation)
        await client.token(after)
        client.subscription.close()
        assert reads.code == "cancelled"
        assert counted(house) == {}
        await house.service.close(0.0)

    run(main())


def test_who_waited_for_nothing_or_was_not_let_in_has_missed_both(run: Run) -> None:
    async def main() -> None:
        tenants = promised(EASY_MS, EASY_MS)
        script = Script(WORDS, hang_after=1)
        limits = Limits(queue=1)
        house = await House(script, slots=1, tenants=tenants, limits=limits).open()
        ask(house, tenant="another")
        late = Witness(ask(house))
        with pytest.raises(HeadraceError) as full:
            ask(house)
        assert full.value.code is Code.QUEUE_FULL
        assert counted(house) == MISSED
        house.service.tick(time.monotonic() + limits.queue_timeout_s + 1)
        assert late.code == "queue_timeout"
        assert counted(house) == {("app", "ttft", False): 2, ("app", "tpot", False): 2}
        await house.service.close(0.0)

    run(main())


def test_a_limit_of_its_own_is_no_miss(run: Run) -> None:
    async def main() -> None:
        rules = Rules(tenants={"app": UsageLimits(requests_per_minute=1)})
        limiting = Limiting(rules)
        house = await House(SLOW, tenants=promised(EASY_MS, None), limiting=limiting).open()
        await Witness(ask(house)).whole()
        with pytest.raises(HeadraceError) as limited:
            ask(house)
        assert limited.value.code is Code.RATE_LIMITED
        assert counted(house) == {("app", "ttft", True): 1}
        await house.service.close(0.0)

    run(main())
