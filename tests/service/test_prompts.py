"""A prompt in mid-stream: behind what was said, before what is said then; and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.domain.delta import Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Finish, Prompt, Token
from headrace.domain.request import CONTINUE, Message, Request, Sampling
from headrace.engines.engine import Work
from headrace.engines.script import Script
from headrace.prompting import MAX_PROMPTS
from headrace.protocols.port import Generation
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook
from headrace.streams.redact import Redact
from headrace.streams.sqlite import SqliteStore

Run = Callable[[Any], Any]
SLOW = Script(WORDS, delay_ms=5)
STUCK = Script(WORDS, hang_after=2)


async def prompt(house: House, generation: Generation, text: str, role: Any = "user") -> list[int]:
    """Add a message; the numbers of its events."""
    added = await house.service.prompt(generation, Message(role, text))
    return [event.seq for event in added]


def prompts(seen: Witness) -> list[str]:
    return [event.content for event in seen.events_seen if isinstance(event, Prompt)]


def shown(seen: Witness) -> list[str]:
    """Text and prompts in the order of the log."""
    return [
        event.text if isinstance(event, Token) else f"<{event.content}>"
        for event in seen.events_seen
        if isinstance(event, Token | Prompt)
    ]


async def refused(house: House, generation: Generation) -> HeadraceError:
    with pytest.raises(HeadraceError) as error:
        await prompt(house, generation, "more")
    return error.value


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what has no event to wait for."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_a_prompt_is_behind_what_was_said_and_the_model_goes_on(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(2)
        (seq,) = await prompt(house, generation, "And why?")
        assert seen.events_seen[seq - 1].seq == seq
        assert await seen.whole() == "".join(WORDS)
        assert shown(seen) == ["The ", "mill ", "<And why?>", "turns ", "slowly."]
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 4
        assert seen.end.usage.prompt_tokens == 3
        assert house.in_use == 0

    run(main())


def test_a_prompt_can_come_before_the_first_token(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        generation = house.ask()
        seen = Witness(generation)
        await prompt(house, generation, "Quick.", "system")
        assert await seen.whole() == "".join(WORDS)
        assert shown(seen)[0] == "<Quick.>"

    run(main())


def test_a_prompt_reaches_who_waits_in_the_queue(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, slots=1).open()
        house.ask()
        waiting = house.ask()
        seen = Witness(waiting)
        assert waiting.state == "queued"
        await prompt(house, waiting, "Still there?")
        assert waiting.state == "queued"
        assert await seen.whole() == "".join(WORDS)
        assert shown(seen)[0] == "<Still there?>"
        assert house.in_use == 0

    run(main())


def test_a_hundred_prompts_keep_their_order_and_cost_few_runs(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(1)
        texts = [f"{i}" for i in range(100)]
        found = await asyncio.gather(*(prompt(house, generation, text) for text in texts))
        assert found == sorted(found)
        assert await seen.whole() == "".join(WORDS)
        assert prompts(seen) == texts
        assert house.engines[0].started == 2

    run(main())


def test_after_the_end_there_is_nothing_to_add_to(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.whole()
        assert (await refused(house, generation)).code is Code.CONFLICT
        kept = await house.service.find(generation.id, "default")
        assert (await refused(house, kept)).code is Code.CONFLICT

    run(main())


def test_what_cannot_take_a_prompt_says_why(run: Run) -> None:
    async def main() -> None:
        house = await House(STUCK).open()
        assert (await refused(house, house.ask(n=2))).param == "n"
        request = Request("m", "completion", prompts=("a", "b"), stream=True)
        several = house.service.submit(request, house.ask().caller, "native", {})
        error = await refused(house, several)
        assert (error.code, error.param) == (Code.UNSUPPORTED, "prompt")

    run(main())


def test_the_number_of_prompts_is_bounded(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=60_000)).open()
        generation = house.ask()
        for i in range(MAX_PROMPTS):
            await prompt(house, generation, f"{i}")
        assert (await refused(house, generation)).code is Code.CONFLICT

    run(main())


def test_max_tokens_counts_over_all_turns(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        generation = house.ask(max_tokens=3)
        seen = Witness(generation)
        for count in (1, 2):
            await seen.token(count)
            await prompt(house, generation, "and?")
        assert await seen.whole() == "".join(WORDS[:3])
        assert isinstance(seen.end, Finish)
        assert seen.end.reasons == ("length",)
        assert seen.end.usage.completion_tokens == 3

    run(main())


def test_an_abort_right_behind_a_prompt_is_the_end(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(1)
        await prompt(house, generation, "more")
        house.service.cancel(generation)
        await seen.whole()
        assert seen.code == "cancelled"
        await asyncio.sleep(0)
        assert house.in_use == house.engines[0].running == 0

    run(main())


def test_a_run_that_breaks_after_a_prompt_goes_on_with_it(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW, replicas=2).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(1)
        await prompt(house, generation, "more")
        await seen.token(2)
        next(engine for engine in house.engines if engine.running).crash()
        assert await seen.whole() == "".join(WORDS)
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 4

    run(main())


class LateStop(BaseHook):
    """Ends late, and holds a stop of its own back meanwhile."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def on_finish(self, context: HookContext, end: Any) -> Sequence[Any]:
        await self.may_end.wait()
        return ()


def test_a_prompt_that_finds_the_end_held_back_by_a_hook_comes_too_late(run: Run) -> None:
    async def main() -> None:
        hook = LateStop()
        house = await House(hooks=[hook]).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(4)
        await asyncio.sleep(0)
        assert (await refused(house, generation)).code is Code.CONFLICT
        hook.may_end.set()
        await seen.whole()

    run(main())


class Slow(BaseHook):
    """Lets tokens through when told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def on_token(self, context: HookContext, deltas: Sequence[Any]) -> Sequence[Any]:
        await self.open.wait()
        return deltas


def test_a_prompt_waits_for_the_hooks_of_what_was_said_before_it(run: Run) -> None:
    async def main() -> None:
        hook = Slow()
        house = await House(STUCK, hooks=[hook]).open()
        generation = house.ask()
        seen = Witness(generation)
        await until(lambda: generation.said.begun)  # type: ignore[attr-defined]
        added = asyncio.ensure_future(prompt(house, generation, "more"))
        await asyncio.sleep(0)
        assert not added.done()
        hook.open.set()
        await added
        await seen.whole() if generation.state == "finished" else await seen.token(4)
        assert shown(seen) == ["The ", "mill ", "<more>", "turns ", "slowly."]

    run(main())


class Rewriter(BaseHook):
    """``on_prompt`` in mid-stream, as a function."""

    def __init__(self, rewrite: Callable[[Sequence[Message]], Any]) -> None:
        self.rewrite = rewrite

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        if not context.running:
            return messages
        answer: Sequence[Message] | Awaitable[Sequence[Message]] = self.rewrite(messages)
        return answer


def test_a_hook_may_rewrite_a_prompt_and_add_others(run: Run) -> None:
    def polite(messages: Sequence[Message]) -> Sequence[Message]:
        return [Message("system", "Be polite."), *(Message("user", "please") for _ in messages)]

    async def main() -> None:
        house = await House(SLOW, hooks=[Rewriter(polite)]).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(1)
        assert len(await prompt(house, generation, "now!")) == 2
        assert await seen.whole() == "".join(WORDS)
        assert shown(seen)[1:3] == ["<Be polite.>", "<please>"]

    run(main())


def test_a_rewriter_that_awaits_keeps_the_order(run: Run) -> None:
    async def slowly(messages: Sequence[Message]) -> Sequence[Message]:
        for _ in range(5 - int(str(messages[0].content))):
            await asyncio.sleep(0)
        return messages

    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=60_000), hooks=[Rewriter(slowly)]).open()
        generation = house.ask()
        seen = Witness(generation)
        await asyncio.gather(*(prompt(house, generation, f"{i}") for i in range(5)))
        assert prompts(seen) == ["0", "1", "2", "3", "4"]

    run(main())


def test_a_hook_may_refuse_or_drop_a_prompt_and_the_generation_goes_on(run: Run) -> None:
    def picky(messages: Sequence[Message]) -> Sequence[Message]:
        if messages[0].content == "drop":
            return ()
        raise HeadraceError(Code.HOOK_REFUSED, "not this")

    async def main() -> None:
        house = await House(SLOW, hooks=[Rewriter(picky)]).open()
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(1)
        assert (await refused(house, generation)).code is Code.HOOK_REFUSED
        assert await prompt(house, generation, "drop") == []
        assert await seen.whole() == "".join(WORDS)
        assert prompts(seen) == []

    run(main())


def test_what_a_hook_holds_back_comes_out_before_the_prompt_but_no_half_card(run: Run) -> None:
    script = Script(("Card ", "4111 1111 ", "1111 1111", " is it."), delay_ms=5)

    async def main() -> None:
        house = await House(script, hooks=[Redact()]).open()
        generation = house.ask()
        seen = Witness(generation)
        await until(lambda: generation.said.tokens == 2)  # type: ignore[attr-defined]
        await prompt(house, generation, "stop")
        text = await seen.whole()
        assert "4111" not in text
        assert shown(seen)[:3] == ["Card ", "[redacted]", "<stop>"]

    run(main())


def test_after_a_restart_it_goes_on_behind_its_prompts(run: Run, tmp_path: Path) -> None:
    script = Script(WORDS, hang_after=1)

    async def main() -> None:
        first = SqliteStore(tmp_path / "h.db")
        house = await House(script, store=first).open()
        generation = house.ask(leaving=CONTINUE, max_tokens=4)
        seen = Witness(generation)
        await seen.token(1)
        await prompt(house, generation, "one")
        await seen.token(2)
        await prompt(house, generation, "two")
        await prompt(house, generation, "three", "system")
        await first.abandon()  # as kill -9 leaves it

        house = await House(store=SqliteStore(tmp_path / "h.db")).open()
        again = await house.service.find(generation.id, "default")
        seen = Witness(again)
        assert await seen.whole() == "".join(WORDS)
        assert [text for text in shown(seen) if text[0] == "<"] == ["<one>", "<two>", "<three>"]
        assert shown(seen)[:3] == ["The ", "<one>", "mill "]
        assert isinstance(seen.end, Finish)
        assert seen.end.usage.completion_tokens == 4
        await house.store.close()

    run(main())


def test_a_completion_takes_a_prompt_too(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        request = Request("m", "completion", prompts=("a",), stream=True, sampling=Sampling())
        generation = house.service.submit(request, house.ask().caller, "native", {})
        seen = Witness(generation)
        await seen.token(1)
        await prompt(house, generation, " b")
        assert await seen.whole() == "".join(WORDS)

    run(main())


def test_what_nobody_kept_is_read_from_the_log(run: Run) -> None:
    async def main() -> None:
        house = await House(SLOW).open()
        house.flow.keeps_raw = (
            False  # as for an upstream that cannot go on from an answer's beginning
        )
        generation = house.ask()
        seen = Witness(generation)
        await seen.token(2)
        assert generation.said is None  # type: ignore[attr-defined]
        works: list[Work] = []
        engine = house.engines[0]
        begin = engine.stream_infer

        def stream_infer(work: Work, sink: Any) -> Any:
            works.append(work)
            return begin(work, sink)

        engine.stream_infer = stream_infer  # type: ignore[method-assign]
        await prompt(house, generation, "one")
        await prompt(house, generation, "two")
        await seen.whole()
        said = [turn.said for turn in works[-1].turns]
        assert said == [Prefix("The mill ", (), 2), Prefix("", ())]

    run(main())


class Preface(BaseHook):
    """Puts a message before a request's own, and awaits if it is told to."""

    def __init__(self, waits: bool) -> None:
        self.waits = waits

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        if context.running:
            return messages
        if messages[0].content == "rude":
            raise HeadraceError(Code.HOOK_REFUSED, "not this")
        rewritten = [Message("system", "Be kind."), *messages]
        return self._later(rewritten) if self.waits else rewritten

    async def _later(self, messages: Sequence[Message]) -> Sequence[Message]:
        await asyncio.sleep(0)
        return messages


@pytest.mark.parametrize("waits", [False, True])
def test_a_hook_may_rewrite_a_request_and_its_log_begins_with_what_is_new(
    run: Run, tmp_path: Path, waits: bool
) -> None:
    script = Script(WORDS, when="Be kind.", hang_after=2)

    async def main() -> None:
        first = SqliteStore(tmp_path / "h.db")
        house = await House(script, store=first, hooks=[Preface(waits)]).open()
        generation = house.ask(leaving=CONTINUE)
        seen = Witness(generation)
        await seen.token(2)
        assert shown(seen) == ["<Be kind.>", "The ", "mill "]
        assert isinstance(seen.events_seen[0], Prompt)
        await first.abandon()

        house = await House(
            Script(WORDS, when="Be kind."),
            store=SqliteStore(tmp_path / "h.db"),
            hooks=[Preface(waits)],
        ).open()
        seen = Witness(await house.service.find(generation.id, "default"))
        assert await seen.whole() == "".join(WORDS)
        assert prompts(seen) == ["Be kind."]
        await house.store.close()

    run(main())


def test_a_hook_may_refuse_a_request_by_its_messages(run: Run) -> None:
    async def main() -> None:
        house = await House(hooks=[Preface(False)]).open()
        seen = Witness(house.ask("rude"))
        await seen.whole()
        assert seen.code == "refused"
        assert house.engines[0].started == 0

    run(main())
