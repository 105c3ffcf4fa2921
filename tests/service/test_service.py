"""The way of a request: whatever happens on it, its log ends once and its slot is free."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import MAX_TEXT_BYTES, Error, Finish, Progress, Token, Usage
from headrace.domain.request import CANCEL, CONTINUE, Leaving
from headrace.engines.script import Script
from headrace.going_on import MAX_FRUITLESS
from headrace.service import Limits
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook
from headrace.streams.sqlite import SqliteStore

Run = Callable[[Any], Any]
SLOW = Script(WORDS, delay_ms=5)
STUCK = Script(WORDS, hang_after=2)


def test_a_request_ends_in_one_finish_and_frees_its_slot(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        seen = Witness(house.ask())
        assert await seen.whole() == "".join(WORDS)
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 4
        assert house.in_use == 0

    run(main())


def test_who_finds_no_slot_waits_and_is_told_its_place(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        first, second = Witness(house.ask()), Witness(house.ask())
        assert await second.whole() == "".join(WORDS)
        assert second.events_seen[0] == Progress(
            1, second.events_seen[0].timestamp, "queued", position=1
        )
        assert first.ended.is_set()

    run(main())


def test_who_waits_in_the_engines_own_line_is_told_so_too(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        house.flow.model.replicas[0].places = 2  # as an engine has it that wants one early
        house.ask()
        early = house.ask()
        assert early.state == "queued"
        seen = Witness(early)
        await seen.token(1)
        assert early.state == "running"
        await seen.whole()
        first = seen.events_seen[0]
        assert first == Progress(1, first.timestamp, "queued", position=1)

    run(main())


def test_a_full_queue_refuses_before_a_log_begins(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, slots=1, limits=Limits(queue=1)).open()
        for _ in range(2):
            house.ask()
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.QUEUE_FULL
        assert refused.value.retry_after_s

    run(main())


def test_too_long_a_wait_and_too_long_a_run_end_with_their_codes(run: Run) -> None:
    async def main() -> None:
        limits = Limits(queue_timeout_s=10, total_timeout_s=30)
        house = await House(STUCK, slots=1, limits=limits).open()
        stuck, waiting = Witness(house.ask()), Witness(house.ask())
        await stuck.token(2)
        now = asyncio.get_running_loop().time()
        house.service.tick(now + 11)
        await waiting.whole()
        assert waiting.code == "queue_timeout"
        assert not stuck.ended.is_set()
        house.service.tick(now + 31)
        await stuck.whole()
        assert stuck.code == "generation_timeout"
        assert house.in_use == 0

    run(main())


@pytest.mark.parametrize("state", ["queued", "prefill", "decode"])
def test_cancelling_ends_it_in_any_state_and_twice_is_once(run: Run, state: str) -> None:
    async def main() -> None:
        script = Script(WORDS, prefill=(1, 2, 3), prefill_ms=10, hang_after=1)
        house = await House(script, slots=1).open()
        blocker = Witness(house.ask()) if state == "queued" else None
        seen = Witness(generation := house.ask())
        if state == "decode":
            await seen.token(1)
        house.service.cancel(generation)
        house.service.cancel(generation)
        await seen.whole()
        assert seen.code == "cancelled"
        assert house.in_use == (1 if blocker else 0)
        assert house.engines[0].running == (1 if blocker else 0)
        assert len(house.flow.queue) == 0

    run(main())


def test_an_abort_token_ends_all_of_its_generations_of_its_tenant_only(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        mine = [Witness(house.ask(abort_token="stop")) for _ in range(2)]
        other = Witness(house.ask(abort_token="stop", tenant="other"))
        assert house.service.abort("stop", "default") == 2
        for seen in mine:
            await seen.whole()
            assert seen.code == "cancelled"
        assert house.service.abort("stop", "default") == 0
        assert not other.ended.is_set()
        assert house.in_use == 1

    run(main())


def test_a_client_that_leaves_cancels_continues_or_has_its_grace(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        left = {}
        for name, leaving in {"cancel": CANCEL, "continue": CONTINUE, "grace": Leaving(5)}.items():
            generation = house.ask(leaving=leaving)
            client = Witness(generation)
            await client.token(2)
            left[name] = Witness(generation, client=False)
            client.subscription.close()
        await left["cancel"].whole()
        assert left["cancel"].code == "cancelled"
        now = asyncio.get_running_loop().time()
        house.service.tick(now + 1)
        assert not left["grace"].ended.is_set()
        house.service.tick(now + 6)
        await left["grace"].whole()
        assert left["grace"].code == "cancelled"
        assert not left["continue"].ended.is_set()
        assert house.in_use == 1

    run(main())


def test_a_client_that_comes_back_within_its_grace_keeps_it_going(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        generation = house.ask(leaving=Leaving(5))
        client = Witness(generation)
        await client.token(2)
        client.subscription.close()
        back = Witness(generation)
        house.service.tick(asyncio.get_running_loop().time() + 60)
        assert back.tokens == list(WORDS[:2])
        assert not back.ended.is_set()

    run(main())


def test_a_run_that_breaks_goes_on_elsewhere_without_a_token_lost_or_repeated(run: Run) -> None:
    async def main() -> None:
        breaking = Script(WORDS, times=1, fail_after=2)
        house = await House(breaking, Script(WORDS)).open()
        seen = Witness(house.ask())
        assert await seen.whole() == "".join(WORDS)
        phases = [event.phase for event in seen.events_seen if isinstance(event, Progress)]
        assert phases == ["moved"]
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 4

    run(main())


def test_a_run_that_always_breaks_ends_with_its_error(run: Run) -> None:
    async def main() -> None:
        dying = Script(WORDS, times=1, fail_after=2), Script(refuse=Code.ENGINE_FAILED)
        house = await House(*dying).open()
        seen = Witness(house.ask())
        assert await seen.whole() == "".join(WORDS[:2])
        assert seen.code == "engine_failed"
        assert house.engines[0].started == MAX_FRUITLESS
        assert house.in_use == 0

    run(main())


def test_runs_that_break_but_bring_tokens_reach_the_end(run: Run) -> None:
    async def main() -> None:
        words, breaks = WORDS * 4, 2 * MAX_FRUITLESS
        house = await House(Script(words, times=breaks, fail_after=1), Script(words)).open()
        seen = Witness(house.ask())
        assert await seen.whole() == "".join(words)
        assert house.engines[0].started == breaks + 1

    run(main())


REFUSING = Script(refuse=Code.ENGINE_UNAVAILABLE, times=MAX_FRUITLESS + 2)


async def ticking(house: House, seen: Witness, limit_s: float = 20.0) -> None:
    """Look at the clock as the app does until the generation is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    while not seen.ended.is_set() and loop.time() < until:
        house.service.tick(loop.time())
        await asyncio.sleep(0.01)


def test_what_outlives_its_client_waits_for_an_engine_that_is_not_there_yet(run: Run) -> None:
    async def main() -> None:
        house = await House(REFUSING, Script(WORDS)).open()
        seen = Witness(house.ask(leaving=CONTINUE))
        await ticking(house, seen)
        assert await seen.whole() == "".join(WORDS)
        plain = await House(REFUSING, Script(WORDS)).open()
        refused = Witness(plain.ask())
        await ticking(plain, refused)
        assert refused.code == "engine_unavailable"
        assert plain.engines[0].started == MAX_FRUITLESS

    run(main())


def test_what_has_tokens_waits_for_an_upstream_that_is_gone_and_the_rest_is_told(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, when="new", hang_after=0), SLOW, slots=2).open()
        begun, new = Witness(house.ask()), Witness(house.ask("new"))
        await begun.token(2)
        house.engines[0].crash(state="unreachable")
        assert new.code == "engine_failed"
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.ENGINE_UNAVAILABLE
        house.service.tick(asyncio.get_running_loop().time())
        assert not begun.ended.is_set()
        await house.engines[0].load()
        await ticking(house, begun)
        assert await begun.whole() == "".join(WORDS)

    run(main())


def test_an_engine_that_is_gone_for_good_ends_all_but_what_outlives_its_client(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK, slots=1, limits=Limits(queue_timeout_s=0.5)).open()
        running, waiting = Witness(house.ask()), Witness(house.ask())
        kept = Witness(house.ask(leaving=CONTINUE))
        await running.token(2)
        house.engines[0].crash("out of memory")
        loop = asyncio.get_running_loop()
        house.service.tick(loop.time())
        assert running.code == "engine_failed"
        assert waiting.code == "engine_unavailable"
        assert isinstance(waiting.end, Error)
        assert "out of memory" in waiting.end.message
        house.service.tick(loop.time() + 1.0)
        assert not kept.ended.is_set()
        await house.engines[0].load()
        house.service.tick(loop.time() + 2.0)
        await kept.token(2)

    run(main())


def test_an_error_that_a_retry_cannot_help_is_not_retried(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, refuse=Code.CONTEXT_LENGTH)).open()
        seen = Witness(house.ask())
        await seen.whole()
        assert seen.code == "context_length_exceeded"
        assert house.engines[0].started == 1

    run(main())


def test_long_text_is_split_between_code_points_and_loses_nothing(run: Run) -> None:
    async def main() -> None:
        text = "mill 🦜 " * 2000
        house = await House(Script((text,))).open()
        seen = Witness(house.ask())
        assert await seen.whole() == text
        tokens = [event for event in seen.events_seen if isinstance(event, Token)]
        assert [token.part for token in tokens] == list(range(len(tokens)))
        assert all(len(token.text.encode()) <= MAX_TEXT_BYTES for token in tokens)

    run(main())


class Shout(BaseHook):
    """Changes, drops and splits, awaiting in between."""

    async def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        await asyncio.sleep(0)
        out = []
        for delta in deltas:
            if delta.text != "mill ":
                out += [Delta(letter) for letter in delta.text.upper()]
        return out

    async def on_finish(self, context: HookContext, end: Any) -> Sequence[Delta]:
        await asyncio.sleep(0)
        return [Delta("!")]


def test_hooks_that_await_keep_the_order(run: Run) -> None:
    async def main() -> None:
        house = await House(hooks=[Shout()]).open()
        assert await Witness(house.ask()).whole() == "THE TURNS SLOWLY.!"

    run(main())


class Bouncer(BaseHook):
    def on_start(self, context: HookContext) -> None:
        raise HeadraceError(Code.HOOK_REFUSED, "Not you.")


class SlowBouncer(BaseHook):
    async def on_start(self, context: HookContext) -> None:
        await asyncio.sleep(0)
        raise HeadraceError(Code.HOOK_REFUSED, "Not you.")


def test_a_hook_may_refuse_at_once_or_after_it_waited(run: Run) -> None:
    async def main() -> None:
        house = await House(hooks=[Bouncer()]).open()
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.HOOK_REFUSED
        slow = await House(hooks=[SlowBouncer()]).open()
        seen = Witness(slow.ask())
        await seen.whole()
        assert seen.code == "refused"
        assert slow.engines[0].started == 0

    run(main())


class Faulty(BaseHook):
    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        raise RuntimeError("a bug")


def test_a_hook_that_fails_ends_the_generation_and_stops_the_engine(run: Run) -> None:
    async def main() -> None:
        house = await House(hooks=[Faulty()]).open()
        seen = Witness(house.ask())
        await seen.whole()
        assert seen.code == "hook_failed"
        assert house.in_use == 0
        assert house.engines[0].running == 0

    run(main())


def test_only_its_owner_finds_a_generation_and_by_any_of_its_ids(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        generation = house.ask(tenant="a")
        ulid = generation.id.removeprefix("gen_")
        assert (await house.service.find("chatcmpl-" + ulid, "a")).id == generation.id
        with pytest.raises(HeadraceError) as hidden:
            await house.service.find(generation.id, "b")
        assert hidden.value.code is Code.GENERATION_NOT_FOUND
        house.service.cancel(generation)
        await Witness(generation, client=False).whole()
        assert (await house.service.find(generation.id, "a")).state == "failed"
        with pytest.raises(HeadraceError) as still_hidden:
            await house.service.find(generation.id, "b")
        never = generation.id[:-1] + ("0" if generation.id[-1] != "0" else "1")
        with pytest.raises(HeadraceError) as unknown:
            await house.service.find(never, "b")
        said = {error.value.message.replace(never, generation.id) for error in (hidden, unknown)}
        assert said == {still_hidden.value.message}, "it can be told from one that never was"

    run(main())


def test_sessions_are_listed_newest_first(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        ids = []
        for _ in range(3):
            generation = house.ask(session="s")
            await Witness(generation).whole()
            ids.append(generation.id)
        await Witness(house.ask(session="other")).whole()
        found = await house.service.list("default", "s", 10)
        assert [generation.id for generation in found] == ids[::-1]

    run(main())


def test_after_a_crash_what_may_goes_on_and_the_rest_is_interrupted(
    run: Run, tmp_path: Path
) -> None:
    async def crash() -> tuple[str, str]:
        store = SqliteStore(tmp_path / "log.db")
        house = await House(STUCK, store=store).open()
        durable, fleeting = house.ask(leaving=CONTINUE), house.ask()
        seen = [Witness(durable), Witness(fleeting)]
        for witness in seen:
            await witness.token(2)
        await store.abandon()
        return durable.id, fleeting.id

    async def restart(durable_id: str, fleeting_id: str) -> None:
        store = SqliteStore(tmp_path / "log.db")
        house = await House(store=store).open()
        durable = Witness(await house.service.find(durable_id, "default"))
        assert await durable.whole() == "".join(WORDS)
        assert isinstance(durable.end, Finish)
        assert durable.end.usage.completion_tokens == 4
        fleeting = Witness(await house.service.find(fleeting_id, "default"))
        assert await fleeting.whole() == "The mill "
        assert fleeting.code == "interrupted"
        await store.close()

    run(restart(*run(crash())))


def test_closing_ends_what_cannot_go_on_and_refuses_new_work(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "log.db")
        house = await House(STUCK, store=store).open()
        durable, fleeting = Witness(house.ask(leaving=CONTINUE)), Witness(house.ask())
        await durable.token(2)
        await house.service.close(0.0)
        await fleeting.whole()
        assert fleeting.code == "interrupted"
        assert not durable.ended.is_set()
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.SHUTTING_DOWN
        assert house.engines[0].running == 0
        await store.close()

    run(main())


def test_an_engine_that_can_never_serve_is_said_at_once(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        house.engines[0].crash("out of memory")
        house.service.tick(0.0)
        with pytest.raises(HeadraceError) as refused:
            house.ask()
        assert refused.value.code is Code.ENGINE_UNAVAILABLE
        assert "out of memory" in refused.value.message
        assert house.service.readiness()[0] is False

    run(main())


def test_a_store_that_fails_ends_the_generation_and_stops_the_engine(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        seen = Witness(generation := house.ask())
        await seen.token(2)
        generation.log.fail(HeadraceError(Code.STORE_FAILED, "The disk is full."))  # type: ignore[attr-defined]
        await seen.ended.wait()
        assert seen.error is not None
        assert seen.error.code is Code.STORE_FAILED
        assert house.in_use == 0
        assert house.engines[0].running == 0

    run(main())


def test_an_engine_that_died_unnoticed_is_left_alone_until_it_was_looked_at(run: Run) -> None:
    async def main() -> None:
        refusing = Script(WORDS, times=1, refuse=Code.ENGINE_UNAVAILABLE)
        house = await House(refusing, Script(WORDS)).open()
        seen = Witness(house.ask())
        for _ in range(20):  # turns of the loop: the refusal comes in the first few
            await asyncio.sleep(0)
        assert len(house.flow.queue) == 1
        assert house.flow.model.readiness()[0] is False
        house.service.tick(asyncio.get_running_loop().time() + 1.0)
        assert await seen.whole() == "".join(WORDS)
        assert house.in_use == 0

    run(main())


def test_a_disk_that_was_full_for_a_moment_costs_its_requests_and_no_slot(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "h.db", journal_bytes=2000)
        house = await House(slots=4, store=store).open()
        await asyncio.sleep(0.05)  # the next journal file is there

        def full(fd: int, offset: int, length: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        asked = [house.ask(leaving=CONTINUE) for _ in range(14)]
        await asyncio.sleep(0.2)
        monkeypatch.undo()
        assert all(generation.ended for generation in asked)
        assert any(generation.log.failure is not None for generation in asked)
        assert (house.service.busy, house.in_use, len(house.flow.queue)) == (False, 0, 0)
        after = house.ask()
        await asyncio.sleep(0.2)
        assert after.state == "finished"
        await house.service.close(0)
        await store.close()

    run(main())


def test_what_a_hook_gives_back_at_the_end_may_be_awaited_though_it_is_no_coroutine_function(
    run: Run,
) -> None:
    class Later(BaseHook):
        def on_finish(self, context: HookContext, end: Finish | Error) -> Awaitable[list[Delta]]:
            async def held() -> list[Delta]:
                await asyncio.sleep(0)
                return [Delta("!")]

            return held()

    class NoRun:
        def cancel(self) -> None:
            """Nothing runs."""

    async def main() -> None:
        house = await House(hooks=[Later()]).open()
        house.engines[0].stream_infer = lambda work, sink: NoRun()  # type: ignore[method-assign]
        generation = house.ask()
        generation.finished(Outcome(("stop",), Usage(1, 1)), [Delta("two")])  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        events = await house.store.read(generation.id, 0, 10_000)
        assert [getattr(event, "text", "end") for event in events] == ["two", "!", "end"]
        assert house.in_use == 0

    run(main())
