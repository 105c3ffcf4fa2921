"""What a generation may use, whatever becomes of it: reserved when it enters, settled when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.admission.day import DayBudgets
from headrace.admission.limiter import Rules
from headrace.admission.sizes import Sizes
from headrace.admission.usage_journal import UsageJournal
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Finish
from headrace.domain.limits import Limits
from headrace.domain.request import (
    CANCEL,
    CONTINUE,
    Caller,
    Cap,
    Message,
    Once,
    Request,
    Sampling,
)
from headrace.engines.script import Script
from headrace.limiting import Limiting
from headrace.protocols.port import Generation
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook
from headrace.streams.sqlite import SqliteStore

Run = Callable[[Any], Any]
DAY = 10_000
STUCK = Script(WORDS, hang_after=2)
LONG = Script(("word ",) * 2000)


def limiting(
    tenant: Limits | None = None, sizes: Sizes | None = None, path: Path | None = None
) -> Limiting:
    """For the tenant ``default``; a budget of a day, unless told otherwise: it does not refill meanwhile."""
    rules = Rules(tenants={"default": tenant or Limits(tokens_per_day=DAY)})
    return Limiting(rules, sizes, DayBudgets(None if path is None else UsageJournal(path)))


def used(generation: Any, day: int = DAY) -> int:
    """Of the budget of the day."""
    left = generation.reservation.allowance(time.monotonic(), time.time()).tokens
    assert left is not None
    return day - int(left.remaining)


def test_a_repeat_takes_nothing_and_is_told_what_is_left(run: Run) -> None:
    async def main() -> None:
        limits = Limits(requests_per_minute=1, tokens_per_day=DAY)
        house = await House(limiting=limiting(limits)).open()
        sampling = Sampling(max_tokens=500)
        request = Request("m", "chat", (Message("user", "hello"),), sampling=sampling, stream=True)
        caller = Caller(once=Once("key"))
        first = await house.service.submit_once(request, caller, "native", {})
        await Witness(first).whole()
        for _ in range(3):
            again = await house.service.submit_once(request, caller, "native", {})
            assert again.id == first.id
            assert used(again) == used(first) > 0
            left = again.reservation.allowance(time.monotonic(), time.time()).requests
            assert (left.limit, left.remaining) == (1, 0)
        assert (await house.service.find(first.id, "default")).reservation is None
        await house.service.close(0.0)

    run(main())


def test_what_an_answer_did_not_use_comes_back_before_its_end_is_visible(run: Run) -> None:
    async def main() -> None:
        house = await House(limiting=limiting()).open()
        generation = house.ask(max_tokens=500)
        assert used(generation) > 500
        at_the_end: list[int] = []

        class Looking(Witness):
            def events(self, events: Any) -> bool:
                if isinstance(events[-1], Finish):
                    at_the_end.append(used(generation))
                return super().events(events)

        await Looking(generation).whole()
        assert at_the_end == [1 + 4]

    run(main())


def test_who_has_no_limits_has_no_reservation(run: Run) -> None:
    async def main() -> None:
        house = await House(limiting=limiting()).open()
        generation: Any = house.ask(tenant="other")
        assert generation.reservation is None
        assert await Witness(generation).whole() == "".join(WORDS)

    run(main())


def test_what_only_counts_tokens_is_a_request_among_the_others(run: Run) -> None:
    async def main() -> None:
        house = await House(limiting=limiting(Limits(requests_per_minute=2))).open()
        service = house.service
        await Witness(house.ask()).whole()
        plan = service.take_request("alias", "default", "")
        assert plan is not None
        left = plan.allowance(time.monotonic(), time.time()).requests
        assert left is not None
        assert left.remaining == 0
        with pytest.raises(HeadraceError) as refused:
            service.take_request("m", "default", "")
        assert refused.value.code is Code.RATE_LIMITED
        assert house.limiting.refused == 1
        with pytest.raises(HeadraceError):
            house.ask()
        assert service.take_request("m", "other", "") is None

    run(main())


def test_a_prompt_does_not_grow_beyond_its_limit_in_mid_stream(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, limiting=limiting(Limits(), Sizes(max_prompt_tokens=100))).open()
        generation = house.ask("x" * 200)
        seen = Witness(generation)
        await seen.token(2)
        await house.service.prompt(generation, Message("user", "y" * 100))
        with pytest.raises(HeadraceError) as refused:
            await house.service.prompt(generation, Message("user", "z" * 100))
        assert refused.value.code is Code.CONTEXT_LENGTH
        house.service.cancel(generation)
        await seen.ended.wait()

    run(main())


@pytest.mark.parametrize("choices", [1, 2])
def test_a_budget_that_runs_out_in_mid_stream_stops_the_stream_there(
    run: Run, choices: int
) -> None:
    async def main() -> None:
        small = limiting(Limits(tokens_per_day=1000))
        house = await House(LONG, limiting=small).open()
        generation: Any = house.ask(n=choices, max_tokens=5000)
        each = generation.request.cap.tokens
        assert each == (1000 - generation.reservation.prompt) // choices
        assert generation.request.sampling.max_tokens == 5000  # as its client said
        seen = Witness(generation)
        await seen.whole()
        assert isinstance(seen.end, Finish)
        assert seen.end.reasons == ("length",) * choices
        assert seen.end.usage.completion_tokens == each * choices
        assert seen.end.usage.limited_by == "tenant.tokens_per_day"
        assert used(generation, 1000) == 1 + each * choices

    run(main())


@pytest.mark.parametrize(
    ("script", "asked", "limited_by"),
    [
        (LONG, 50, None),  # as its client wanted
        (LONG, None, "reserve_tokens"),
        (Script(WORDS), None, None),  # by itself
    ],
)
def test_only_a_limit_of_ours_is_told(
    run: Run, script: Script, asked: int | None, limited_by: str | None
) -> None:
    async def main() -> None:
        house = await House(script, limiting=limiting(sizes=Sizes(reserve_tokens=100))).open()
        seen = Witness(house.ask(max_tokens=asked))
        await seen.whole()
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.limited_by == limited_by

    run(main())


def test_an_answer_that_the_context_ends_needs_no_cap(run: Run) -> None:
    async def main() -> None:
        house = await House(limiting=limiting()).open()  # its engine has a context of 4096
        generation: Any = house.ask(max_tokens=100_000)
        assert generation.request.cap is None
        reservation = generation.reservation
        assert reservation.prompt + reservation.output == 4096

    run(main())


def test_a_cancelled_generation_has_used_what_it_said(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, limiting=limiting()).open()
        generation: Any = house.ask(max_tokens=500)
        seen = Witness(generation)
        await seen.token(2)
        seen.subscription.close()
        assert generation.ended
        assert used(generation) == generation.reservation.prompt + 2

    run(main())


def test_who_is_cancelled_in_the_queue_has_used_nothing(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, slots=1, limiting=limiting()).open()
        house.ask(tenant="other")
        waiting = house.ask(max_tokens=500)
        assert used(waiting) > 500
        house.service.cancel(waiting)
        assert used(waiting) == 0

    run(main())


def test_an_answer_in_one_piece_that_is_cancelled_pays_for_its_time(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, limiting=limiting()).open()
        generation: Any = house.ask(stream=False, max_tokens=500)
        Witness(generation)
        generation.started_at -= 1.0
        house.service.cancel(generation)
        reservation = generation.reservation
        took = 1.0 / reservation.plan.estimates.token_s
        assert reservation.prompt + took <= used(generation) <= reservation.prompt + 500

    run(main())


@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        (Script(WORDS, refuse=Code.CONTEXT_LENGTH), None),
        (Script(WORDS, fail_after=2, fail_code=Code.CONTEXT_LENGTH), 2),
    ],
)
def test_who_is_failed_by_an_engine_pays_for_what_it_got(
    run: Run, script: Script, tokens: int | None
) -> None:
    async def main() -> None:
        house = await House(script, limiting=limiting()).open()
        generation: Any = house.ask(max_tokens=500)
        seen = Witness(generation)
        await seen.ended.wait()
        assert seen.code == "context_length_exceeded"
        expected = 0 if tokens is None else generation.reservation.prompt + tokens
        assert used(generation) == expected

    run(main())


def test_a_run_that_breaks_and_goes_on_is_paid_once(run: Run) -> None:
    async def main() -> None:
        broken = Script(WORDS, fail_after=2, times=1)
        house = await House(broken, Script(WORDS), replicas=2, limiting=limiting()).open()
        seen = Witness(generation := house.ask(max_tokens=500))
        assert await seen.whole() == "".join(WORDS)
        assert used(generation) == 1 + 4

    run(main())


def test_what_a_hook_refuses_gives_back_what_it_took(run: Run) -> None:
    class Guard(BaseHook):
        def on_start(self, context: HookContext) -> None:
            if "secret" in context.request.messages[0].text:
                raise HeadraceError(Code.HOOK_REFUSED, "No.")

    async def main() -> None:
        house = await House(hooks=[Guard()], limiting=limiting()).open()
        with pytest.raises(HeadraceError):
            house.ask("secret")
        generation = house.ask(max_tokens=10)
        await Witness(generation).whole()
        assert used(generation) == 5

    run(main())


def test_so_many_run_at_once_and_the_next_may_when_one_has_ended(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, limiting=limiting(Limits(concurrent=2))).open()
        first = house.ask()
        house.ask()
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.CONCURRENCY_LIMIT
        house.service.cancel(first)
        house.ask()

    run(main())


def test_refused_requests_leave_nothing_behind(run: Run) -> None:
    async def main() -> None:
        house = await House(limiting=limiting(Limits(requests_per_minute=1))).open()
        await Witness(house.ask()).whole()
        for _ in range(10):
            with pytest.raises(HeadraceError):
                house.ask()
        assert not house.service.busy
        assert house.engines[0].started == 1

    run(main())


def test_sizes_are_checked_before_anything_else(run: Run) -> None:
    async def main() -> None:
        sizes = Sizes(max_prompt_tokens=100, max_tokens=50, max_n=2)
        house = await House(LONG, limiting=Limiting(sizes=sizes)).open()
        for asked, code, param in (
            ({"max_tokens": 51}, Code.INVALID_REQUEST, "max_tokens"),
            ({"n": 3}, Code.INVALID_REQUEST, "n"),
            ({"text": "word " * 200}, Code.CONTEXT_LENGTH, None),
        ):
            with pytest.raises(HeadraceError) as refused:
                house.ask(**asked)  # type: ignore[arg-type]
            assert (refused.value.code, refused.value.param) == (code, param)
        seen = Witness(house.ask())
        await seen.whole()
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 50
        assert seen.end.usage.limited_by == "max_tokens"

    run(main())


def test_a_prompt_in_mid_stream_is_paid_too(run: Run) -> None:
    async def main() -> None:
        house = await House(
            STUCK, limiting=limiting(Limits(tokens_per_day=500, concurrent=5))
        ).open()
        generation: Any = house.ask(max_tokens=200)
        await Witness(generation).token(2)
        before = used(generation, 500)
        with pytest.raises(HeadraceError) as refused:
            await house.service.prompt(generation, Message("user", "word " * 300))
        assert refused.value.code is Code.RATE_LIMITED
        await house.service.prompt(generation, Message("user", "word " * 100))
        assert used(generation, 500) == before + 125

    run(main())


def test_other_limits_hold_for_who_comes_and_no_stream_notices(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, Script(WORDS), limiting=limiting(Limits(concurrent=1))).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(2)
        house.limiting.replace(Rules(tenants={"default": Limits(tokens_per_day=5)}), Sizes())
        with pytest.raises(HeadraceError) as refused:
            house.ask("word " * 20)
        assert refused.value.code is Code.REQUEST_TOO_LARGE
        assert not seen.ended.is_set()
        house.limiting.replace(Rules(), Sizes(max_tokens=7))
        assert cap_of(house.ask("word " * 20)) == Cap(7, "max_tokens")
        house.service.cancel(generation)
        assert seen.code == "cancelled"

    run(main())


def test_the_next_process_knows_what_was_used_and_what_goes_on(run: Run, tmp_path: Path) -> None:
    journal = tmp_path / "usage"

    async def crash() -> tuple[str, int, int]:
        store = SqliteStore(tmp_path / "log.db")
        scripts = (Script(WORDS, when="short"), Script(when="unheard", hang_after=0), STUCK)
        house = await House(*scripts, store=store, limiting=limiting(path=journal)).open()
        await Witness(house.ask("short", max_tokens=50)).whole()
        durable: Any = house.ask(leaving=CONTINUE, max_tokens=300)
        fleeting: Any = house.ask(leaving=CANCEL, max_tokens=300)
        house.ask("unheard", max_tokens=300)  # nothing of it comes to a log
        for generation in (durable, fleeting):
            await Witness(generation).token(2)
        prompt = durable.reservation.prompt
        assert used(durable) > 900
        await store.abandon()
        return durable.id, prompt, fleeting.reservation.prompt

    async def restart(durable_id: str, prompt: int, fleeting_prompt: int) -> None:
        store = SqliteStore(tmp_path / "log.db")
        house = House(store=store, limiting=limiting(path=journal))
        recovered = await store.open()
        house.limiting.load(time.time())
        house.service.recover(recovered)
        durable: Any = await house.service.find(durable_id, "default")
        unheard_prompt = fleeting_prompt  # "hello" and "unheard" are two tokens each
        settled = 1 + 4 + fleeting_prompt + 2 + unheard_prompt
        assert used(durable) == settled + prompt + 300
        for engine in house.engines:
            await engine.load()
        house.service.tick(0.0)
        await Witness(durable).whole()
        assert used(durable) == settled + 1 + 4
        await store.close()

    run(restart(*run(crash())))


def test_a_pace_holds_back_what_comes_too_early_and_frees_the_slot(run: Run) -> None:
    async def main() -> None:
        script = Script(tuple(f"{number} " for number in range(30)))
        house = await House(script, slots=1, limiting=limiting(Limits(pace=20.0))).open()
        paced = Witness(house.ask())
        quick = Witness(house.ask(tenant="other"))
        assert len((await quick.whole()).split()) == 30
        assert not paced.ended.is_set()
        assert len(paced.tokens) < 30
        assert house.in_use == 0
        assert not house.flow.running  # nobody who needs a slot would get one by pausing it
        assert (await paced.whole()).split() == [str(number) for number in range(30)]
        assert isinstance(paced.end, Finish)
        assert paced.end.usage.completion_tokens == 30

    run(main())


def test_an_answer_in_one_piece_has_the_pace_of_a_stream(run: Run) -> None:
    async def main() -> None:
        script = Script(("word ",) * 20)
        house = await House(script, slots=1, limiting=limiting(Limits(pace=20.0))).open()
        whole = Witness(house.ask(stream=False))
        quick = Witness(house.ask(tenant="other"))
        await quick.whole()
        assert not whole.ended.is_set()
        assert await whole.whole() == "word " * 20

    run(main())


def test_who_leaves_a_paced_stream_pays_for_all_that_was_computed(run: Run) -> None:
    async def main() -> None:
        script = Script(("word ",) * 30)
        limits = Limits(pace=5.0, tokens_per_day=DAY)
        house = await House(script, slots=1, limiting=limiting(limits)).open()
        generation: Any = house.ask(max_tokens=100)
        seen = Witness(generation)
        await seen.token(2)
        await Witness(house.ask(tenant="other")).whole()  # the engine is done with the first
        seen.subscription.close()
        assert used(generation) == generation.reservation.prompt + 30

    run(main())


def test_a_prompt_to_a_paced_stream_whose_slot_is_taken_waits_for_another(run: Run) -> None:
    async def main() -> None:
        script = Script(tuple(f"{number} " for number in range(12)))
        stuck = Script(WORDS, when="stuck", hang_after=1)
        house = await House(stuck, script, slots=1, limiting=limiting(Limits(pace=10.0))).open()
        paced = Witness(generation := house.ask())
        await paced.token(1)
        blocking = house.ask("stuck", tenant="other")
        await Witness(blocking).token(1)
        await house.service.prompt(generation, Message("user", "go on"))
        await asyncio.sleep(0)
        assert generation.state == "queued"
        house.service.cancel(blocking)
        assert (await paced.whole()).split() == [str(number) for number in range(12)]
        assert house.in_use == 0

    run(main())


def test_a_paced_run_that_breaks_goes_on_from_all_that_it_computed(run: Run) -> None:
    async def main() -> None:
        words = tuple(f"{number} " for number in range(8))
        broken = Script(words, fail_after=5, times=1)
        house = await House(
            broken, Script(words), replicas=2, limiting=limiting(Limits(pace=50.0))
        ).open()
        paced = Witness(house.ask())
        assert (await paced.whole()).split() == [str(number) for number in range(8)]

    run(main())


def cap_of(generation: Generation) -> Cap | None:
    return generation.request.cap


def test_a_cap_outlives_the_process(run: Run, tmp_path: Path) -> None:
    journal = tmp_path / "usage"
    long = Script(("word ",) * 2000, delay_ms=1)

    async def crash() -> str:
        store = SqliteStore(tmp_path / "log.db")
        small = limiting(Limits(tokens_per_day=600), path=journal)
        house = await House(long, store=store, limiting=small).open()
        generation = house.ask(leaving=CONTINUE, max_tokens=5000)
        assert cap_of(generation) is not None
        await Witness(generation).token(3)
        await store.abandon()
        return generation.id

    async def restart(id: str) -> None:
        store = SqliteStore(tmp_path / "log.db")
        small = limiting(Limits(tokens_per_day=600), path=journal)
        house = await House(LONG, store=store, limiting=small).open()
        generation = await house.service.find(id, "default")
        cap = cap_of(generation)
        assert cap is not None
        seen = Witness(generation)
        await seen.whole()
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == cap.tokens
        assert seen.end.usage.limited_by == "tenant.tokens_per_day"
        await store.close()

    run(restart(run(crash())))
