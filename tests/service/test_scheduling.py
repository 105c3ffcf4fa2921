"""Who runs when, in a whole service: fair between tenants, urgent before patient, told where it stands, never lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.admission.tenants import Tenants
from headrace.domain.errors import Code
from headrace.domain.event import Progress
from headrace.domain.request import CONTINUE, Caller, Message, Request, Sampling, Urgency
from headrace.domain.tenant import LEVELS, Level, Tenant
from headrace.engines.script import Script
from headrace.protocols.port import Generation
from headrace.scheduling.policy import Ticket
from headrace.service import Limits

Run = Callable[[Coroutine[Any, Any, Any]], Any]
SLOW = Script(WORDS, delay_ms=5)


def tenants(*known: Tenant) -> Tenants:
    found = Tenants()
    found.replace(known)
    return found


def ask(
    house: House,
    tenant: str,
    *,
    priority: int = 0,
    ttft_s: float | None = None,
    level: Level | None = None,
) -> Generation:
    messages = (Message("user", "hello"),)
    request = Request(
        "m", "chat", messages, sampling=Sampling(max_tokens=1000), stream=True, priority=priority
    )
    caller = Caller(tenant, leaving=CONTINUE, urgency=Urgency(ttft_s, None, level))
    return house.service.submit(request, caller, "native", {})


def ticket_of(generation: Any) -> Ticket:
    ticket: Ticket = generation.ticket
    return ticket


def order_of(begun: list[str], name: str, generation: Generation) -> asyncio.Task[str]:
    """Notes the name when its first token comes."""

    async def wait() -> str:
        reads = Witness(generation, client=False)
        await reads.token(1)
        begun.append(name)
        return await reads.whole()

    return asyncio.create_task(wait())


async def tick(house: House) -> None:
    """As the server does, but sooner."""
    loop = asyncio.get_running_loop()
    while True:
        house.flow.told_at = 0.0  # a second is long here
        house.service.tick(loop.time())
        await asyncio.sleep(0.01)


def phases(reads: Witness) -> list[str]:
    return [event.phase for event in reads.events_seen if isinstance(event, Progress)]


def test_a_light_tenant_does_not_wait_behind_all_of_a_heavy_one(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        begun: list[str] = []
        heavy = [order_of(begun, "heavy", ask(house, "heavy")) for _ in range(10)]
        light = order_of(begun, "light", ask(house, "light"))
        texts = await asyncio.gather(*heavy, light)
        assert set(texts) == {"".join(WORDS)}
        assert begun.index("light") <= 2
        await house.service.close(0.0)

    run(main())


def test_a_more_urgent_request_of_the_same_tenant_goes_first(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        begun: list[str] = []
        waits = [order_of(begun, str(n), ask(house, "a", priority=-n)) for n in range(5)]
        await asyncio.gather(*waits)
        assert begun == ["0", "4", "3", "2", "1"]  # the first had a place at once
        await house.service.close(0.0)

    run(main())


def test_a_request_of_a_lower_level_lets_its_tenants_others_ahead(run: Run) -> None:
    async def main() -> None:
        house = await House(
            SLOW, slots=1, tenants=tenants(Tenant(name="a", level="standard"))
        ).open()
        begun: list[str] = []
        waits = [order_of(begun, "running", ask(house, "a"))]
        for level in ("batch", "standard", "interactive"):
            waits.append(order_of(begun, level, ask(house, "a", level=level)))
        waits.append(order_of(begun, "plain", ask(house, "a")))
        await asyncio.gather(*waits)
        assert begun == ["running", "standard", "interactive", "plain", "batch"]
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("level", LEVELS)
def test_no_level_that_a_request_names_makes_it_another_account(run: Run, level: Level) -> None:
    async def main() -> None:
        house = await House(
            SLOW, slots=1, tenants=tenants(Tenant(name="a", level="standard"))
        ).open()
        ask(house, "a")
        plain, named = ask(house, "a"), ask(house, "a", level=level)
        assert ticket_of(named).account is ticket_of(plain).account
        assert ticket_of(named).priority >= ticket_of(plain).priority
        assert ticket_of(named).terms.level == "standard"
        await house.service.close(0.0)

    run(main())


def test_a_batch_gives_way_to_a_person_and_loses_nothing(run: Run) -> None:
    long = Script(WORDS, when="hello", repeat=60, delay_ms=5, prompt_tokens=10, cached_tokens=10)

    async def main() -> None:
        known = tenants(
            Tenant(name="job", level="batch"),
            Tenant(name="app", level="interactive", ttft_ms=300.0),
        )
        house = await House(long, slots=1, tenants=known).open()
        job = ask(house, "job")
        reads = Witness(job, client=False)
        await reads.token(8)
        person = Witness(ask(house, "app"), client=False)
        ticking = asyncio.create_task(tick(house))
        await person.token(1)
        ticking.cancel()
        assert not reads.ended.is_set()
        assert "paused" in phases(reads)
        assert await person.whole() == "".join(WORDS) * 60
        assert await reads.whole() == "".join(WORDS) * 60
        assert house.in_use == 0
        assert house.flow.running == {}
        # What the cache had of its prompt it had computed itself before the pause.
        assert ticket_of(job).cached_tokens == 0
        assert house.flow.estimates.cached_tokens("job", 100) == 0
        assert house.flow.estimates.cached_tokens("app", 100) == 100
        await house.service.close(0.0)

    run(main())


def test_who_waits_hears_where_it_stands(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=30), slots=1).open()
        readers = [Witness(ask(house, f"t{n}"), client=False) for n in range(9)]
        ticking = asyncio.create_task(tick(house))
        await asyncio.gather(*(reads.ended.wait() for reads in readers))
        ticking.cancel()
        last = readers[-1]
        told = [one for one in last.events_seen if isinstance(one, Progress) and one.position]
        positions = [one.position for one in told]
        assert positions == sorted(positions, key=lambda at: -(at or 0))
        assert len(set(positions)) == len(positions) > 1
        assert any(one.eta_s is not None for one in told[1:])
        await house.service.close(0.0)

    run(main())


def test_how_far_off_an_estimated_wait_was_is_counted(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=2), slots=1).open()
        readers = [Witness(ask(house, f"t{n}"), client=False) for n in range(9)]
        await readers[5].ended.wait()  # enough has started to foresee something
        readers.append(Witness(ask(house, "late"), client=False))
        await asyncio.gather(*(reads.ended.wait() for reads in readers))
        model = house.metrics.model("m")
        assert model.shorter.count + model.longer.count == 1
        await house.service.close(0.0)

    run(main())


def test_what_was_told_only_while_it_waited_is_counted_once_and_from_then(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, hang_after=1), slots=1).open()
        first, waiting = ask(house, "a"), Witness(ask(house, "b"), client=False)
        generation: Any = house.flow.queue.first(0.0)
        assert generation.foreseen is None  # nobody could say
        now = time.monotonic()
        for number in range(8, -1, -1):
            house.flow.queue._starts.started(now - 7.0 * number, 1)
        generation.told = 2, now
        for later_s in (2.0, 4.0):
            house.flow.told_at = 0.0
            house.service.tick(now + later_s)
            generation.told = 2, now
        told = [one.eta_s for one in waiting.events_seen if isinstance(one, Progress)]
        assert told == [None, pytest.approx(7.0), pytest.approx(7.0)]
        assert generation.foreseen == (pytest.approx(7.0), now + 2.0)
        generation.foreseen = 7.0, now - 10.0
        house.service.cancel(first)
        await waiting.token(1)
        model = house.metrics.model("m")
        assert (model.shorter.count, model.longer.count) == (0, 1)
        assert model.longer.total_s == pytest.approx(3.0, abs=0.5)
        await house.service.close(0.0)

    run(main())


def test_a_full_queue_sheds_the_least_urgent_that_agreed_to_it(run: Run) -> None:
    async def main() -> None:
        known = tenants(
            Tenant(name="job", level="batch", sheddable=True),
            Tenant(name="app", level="interactive", overflow="shed"),
        )
        limits = Limits(queue=2)
        house = await House(
            Script(WORDS, hang_after=1), slots=1, tenants=known, limits=limits
        ).open()
        ask(house, "app")
        jobs = [Witness(ask(house, "job"), client=False) for _ in range(2)]
        person = Witness(ask(house, "app"), client=False)
        await asyncio.sleep(0)
        shed = [job for job in jobs if job.ended.is_set()]
        assert [job.code for job in shed] == ["queue_full"]
        assert not person.ended.is_set()
        refused = Witness(ask(house, "app"), client=False)
        assert [job.ended.is_set() for job in jobs] == [True, True]
        refused = Witness(ask(house, "app"), client=False)
        assert refused.code == "queue_full"
        await house.service.close(0.0)

    run(main())


def test_a_full_queue_lets_wait_outside_who_may(run: Run) -> None:
    async def main() -> None:
        known = tenants(Tenant(name="app", overflow="wait"))
        limits = Limits(queue=1)
        house = await House(SLOW, slots=1, tenants=known, limits=limits).open()
        readers = [Witness(ask(house, "app"), client=False) for _ in range(3)]
        assert {await reads.whole() for reads in readers} == {"".join(WORDS)}
        await house.service.close(0.0)

    run(main())


def test_charges_are_what_the_engine_counted(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        ahead = Witness(ask(house, "b"), client=False)
        first = ask(house, "a")
        await Witness(first, client=False).whole()
        await ahead.whole()
        ticket: Any = first.ticket  # type: ignore[attr-defined]
        assert ticket.produced == len(WORDS)
        assert not ticket.runs
        await house.service.close(0.0)

    run(main())


def test_a_cached_prompt_is_charged_as_such_and_expected_again(run: Run) -> None:
    async def main() -> None:
        script = Script(WORDS, delay_ms=5, prompt_tokens=4000, cached_tokens=3000)
        house = await House(script, slots=1).open()
        ahead, first = ask(house, "b"), ask(house, "a")
        assert ticket_of(first).cached_tokens == 0
        reads = Witness(first, client=False)
        await Witness(ahead, client=False).whole()
        await reads.token(1)
        paid = ticket_of(first).account.counter
        estimate = ticket_of(first).prompt_tokens
        account = ticket_of(first).account
        await reads.whole()
        assert (ticket_of(first).prompt_tokens, ticket_of(first).cached_tokens) == (4000, 3000)
        assert account.counter == paid - estimate + 1000 + 2 * len(WORDS)
        ahead, again, other = (ask(house, tenant) for tenant in "bac")
        prompt = ticket_of(again).prompt_tokens
        assert prompt > estimate  # it learns how long prompts are, too
        assert ticket_of(again).cached_tokens == int(0.75 * prompt)
        assert ticket_of(other).cached_tokens == 0
        await house.service.close(0.0)

    run(main())


def test_a_prompt_in_mid_stream_leaves_the_charge_as_it_is(run: Run) -> None:
    async def main() -> None:
        script = Script(WORDS, delay_ms=5, prompt_tokens=40, cached_tokens=30)
        house = await House(script, slots=1).open()
        first, behind = ask(house, "a"), ask(house, "b")
        estimate = ticket_of(first).prompt_tokens
        reads = Witness(first, client=False)
        await house.service.prompt(first, Message("user", "more"))
        await reads.whole()
        assert (ticket_of(first).prompt_tokens, ticket_of(first).cached_tokens) == (estimate, 0)
        assert house.flow.estimates.cached_tokens("a", 100) == 0
        await Witness(behind, client=False).whole()
        await house.service.close(0.0)

    run(main())


def test_while_nobody_waits_nobody_is_charged(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=10), slots=2).open()
        first, second = ask(house, "a"), ask(house, "b")
        assert (first.ticket, second.ticket) == (None, None)  # type: ignore[attr-defined]
        reads = Witness(first, client=False)
        await reads.token(2)
        third = ask(house, "c")
        ticket: Any = first.ticket  # type: ignore[attr-defined]
        assert ticket.runs
        await asyncio.gather(reads.whole(), Witness(third, client=False).whole())
        assert ticket.produced == len(WORDS)
        assert not ticket.runs
        await house.service.close(0.0)

    run(main())


def test_nothing_is_left_in_a_queue_of_what_was_cancelled(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, hang_after=1), slots=1).open()
        generations = [ask(house, f"t{n % 3}") for n in range(12)]
        for generation in generations:
            house.service.cancel(generation)
        assert len(house.flow.queue) == len(house.flow.queue.policy) == 0
        assert house.in_use == 0
        assert house.flow.running == {}
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("code", [Code.QUEUE_TIMEOUT])
def test_a_sheddable_one_that_can_only_be_late_is_refused(run: Run, code: Code) -> None:
    async def main() -> None:
        known = tenants(Tenant(name="job", sheddable=True, ttft_ms=200))
        house = await House(Script(WORDS, hang_after=1), slots=1, tenants=known).open()
        ask(house, "other")
        late = Witness(ask(house, "job"), client=False)
        await asyncio.sleep(0.3)
        house.service.tick(asyncio.get_running_loop().time())
        assert late.code == code.value
        await house.service.close(0.0)

    run(main())
