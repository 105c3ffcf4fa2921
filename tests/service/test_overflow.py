"""What becomes of a request that finds a queue full: it goes elsewhere, or hears at once when to come again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.admission.limiter import Rules
from headrace.admission.tenants import Tenants
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error
from headrace.domain.limits import Limits as Allowed
from headrace.domain.tenant import Overflow, Tenant
from headrace.engines.script import Script
from headrace.limiting import Limiting
from headrace.protocols.port import Generation
from headrace.service import Limits
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook

Run = Callable[[Any], Any]
STUCK = Script(WORDS, hang_after=1)
DAY = 10_000


def tenants(*known: Tenant) -> Tenants:
    found = Tenants()
    found.replace(known)
    return found


SPILLS = tenants(Tenant(name="default", overflow="spill"))


def house_of(waiting: int, *, tenants: Tenants = SPILLS, **options: Any) -> House:
    """One slot, and so many may wait."""
    limiting = Limiting(Rules(tenants={"default": Allowed(tokens_per_day=DAY)}))
    limits = Limits(queue=waiting)
    return House(STUCK, slots=1, limits=limits, tenants=tenants, limiting=limiting, **options)


def reserved(generation: Any) -> float:
    """Tokens of the day that its tenant has not got any more."""
    left = generation.reservation.allowance(time.monotonic(), time.time()).tokens
    return float(DAY - left.remaining)


def retry_after_s(reads: Witness) -> float | None:
    assert isinstance(reads.end, Error)
    return reads.end.retry_after_s


def known_rate(house: House, gap_s: float) -> float:
    """Others have started so far apart. Returns the time now, by ``time.monotonic``."""
    now = time.monotonic()
    for number in range(8, -1, -1):
        house.flow.queue._starts.started(now - number * gap_s, 1)
    return now


def fill(house: House) -> Generation:
    """Its slot and its queue. Returns what runs."""
    first = house.ask(max_tokens=100)
    for _ in range(house.flow.queue.limit):
        house.ask(max_tokens=100)
    return first


def test_who_spills_finds_the_fallbacks_slot_and_then_its_queue(run: Run) -> None:
    async def main() -> None:
        house = await house_of(1, fallback=Script(WORDS, delay_ms=2)).open()
        fill(house)
        spilled = [house.ask(max_tokens=100) for _ in range(2)]
        assert [one.model for one in spilled] == ["f", "f"]
        assert len(house.fallback.queue) == 1
        assert [await Witness(one).whole() for one in spilled] == ["".join(WORDS)] * 2
        await house.service.close(0.0)

    run(main())


def test_without_a_queue_who_spills_does_so_when_no_slot_is_free(run: Run) -> None:
    async def main() -> None:
        house = await house_of(0, fallback=Script(WORDS)).open()
        assert [house.ask().model, house.ask().model] == ["m", "f"]
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("fallback", [None, STUCK])
def test_who_can_spill_nowhere_is_refused_at_once_and_leaves_nothing(
    run: Run, fallback: Script | None
) -> None:
    async def main() -> None:
        house = await house_of(1, fallback=fallback).open()
        first = fill(house)
        if fallback is not None:
            assert [house.ask(max_tokens=100).model for _ in range(2)] == ["f", "f"]
        before = reserved(first)
        with pytest.raises(HeadraceError) as refused:
            house.ask(max_tokens=100)
        assert refused.value.code is Code.QUEUE_FULL
        assert refused.value.retry_after_s
        assert reserved(first) == before
        assert len(house.flow.queue) == len(house.fallback.queue) == 1
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("fallback", [None, STUCK])
def test_without_queues_who_can_spill_nowhere_ends_at_once_and_leaves_nothing(
    run: Run, fallback: Script | None
) -> None:
    async def main() -> None:
        house = await house_of(0, fallback=fallback).open()
        first = fill(house)
        if fallback is not None:
            assert house.ask(max_tokens=100).model == "f"
        before = reserved(first)
        refused = Witness(house.ask(max_tokens=100))
        assert refused.code == "queue_full"
        assert retry_after_s(refused) == 1.0
        assert reserved(first) == before
        assert len(house.flow.queue) == len(house.fallback.queue) == 0
        await house.service.close(0.0)

    run(main())


def test_who_finds_the_queue_full_only_after_its_hooks_is_refused_then(run: Run) -> None:
    class Slow(BaseHook):
        async def on_start(self, context: HookContext) -> None:
            """It has to be waited for, and others come meanwhile."""

    async def main() -> None:
        house = await house_of(1, hooks=[Slow()]).open()
        seen = [Witness(house.ask(max_tokens=100)) for _ in range(3)]
        await seen[2].ended.wait()
        assert seen[2].code == "queue_full"
        assert len(house.flow.queue) == 1
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("overflow", ["reject", "spill"])
def test_who_is_refused_at_the_door_hears_when_the_next_starts(
    run: Run, overflow: Overflow
) -> None:
    async def main() -> None:
        known = tenants(Tenant(name="default", overflow=overflow))
        house = await house_of(1, tenants=known).open()
        fill(house)
        known_rate(house, 7.0)
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.retry_after_s == pytest.approx(7.0, rel=0.1)
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("gap_s", [None, 7.0])
def test_who_gives_way_hears_when_the_next_starts(run: Run, gap_s: float | None) -> None:
    async def main() -> None:
        known = tenants(
            Tenant(name="job", level="batch", sheddable=True),
            Tenant(name="app", level="interactive", overflow="shed"),
        )
        house = await house_of(1, tenants=known).open()
        house.ask(tenant="app")
        job = Witness(house.ask(tenant="job"))
        if gap_s is not None:
            known_rate(house, gap_s)
        house.ask(tenant="app")
        assert job.code == "queue_full"
        assert retry_after_s(job) == pytest.approx(gap_s or 5.0, rel=0.1)
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize(("gap_s", "told_s"), [(None, 5.0), (7.0, 14.0)])
def test_who_can_only_be_late_hears_when_those_that_wait_have_started(
    run: Run, gap_s: float | None, told_s: float
) -> None:
    async def main() -> None:
        known = tenants(Tenant(name="job", sheddable=True, ttft_ms=200))
        house = await house_of(9, tenants=known).open()
        house.ask(tenant="other")
        job = Witness(house.ask(tenant="job"))
        for _ in range(2):
            house.ask(tenant="other")
        now = time.monotonic() if gap_s is None else known_rate(house, gap_s)
        house.service.tick(now + 0.3)
        assert job.code == "queue_timeout"
        assert retry_after_s(job) == pytest.approx(told_s, rel=0.1)
        await house.service.close(0.0)

    run(main())


def test_who_waited_too_long_hears_when_those_that_still_wait_have_started(run: Run) -> None:
    async def main() -> None:
        house = await house_of(9).open()
        first = Witness(fill(house))
        late = [Witness(one.item) for one in house.flow.queue.waiting.values()]
        now = known_rate(house, 7.0)
        house.service.tick(now + house.service.limits.queue_timeout_s + 1)
        assert {one.code for one in late} == {"queue_timeout"}
        # Nobody is left, and nobody has started since.
        at_rest_s = (house.service.limits.queue_timeout_s + 1 + 8 * 7) / 9
        told_s = [retry_after_s(one) for one in late]
        assert told_s == [pytest.approx(at_rest_s, rel=0.1)] * len(late)
        assert not first.ended.is_set()
        await house.service.close(0.0)

    run(main())
