"""Tokens, prompts, aborts, restarts, crashes and hooks in any order: the log stays whole."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.service.house import House, Witness

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Finish, Prompt, Token
from headrace.domain.request import CONTINUE, Message
from headrace.engines.script import Script
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook
from headrace.streams.sqlite import SqliteStore

WORDS = tuple(f"{i} " for i in range(40))
SCRIPT = Script(WORDS, delay_ms=0.2)
WHOLE = "".join(WORDS)


class Holding(BaseHook):
    """Lets text leave three characters late."""

    name = "holding"

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Any:
        text = context.state.get(self.name, "") + "".join(delta.text for delta in deltas)
        context.state[self.name] = text[-3:]
        return [Delta(text[:-3])] if text[:-3] else []

    def on_turn_end(self, context: HookContext) -> Any:
        held = context.state.pop(self.name, "")
        return [Delta(held)] if held else []

    def on_finish(self, context: HookContext, end: Finish | Error) -> Any:
        return self.on_turn_end(context)


class Waiting(Holding):
    """The same, and awaits."""

    name = "waiting"

    async def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Any:
        await asyncio.sleep(0)
        return super().on_token(context, deltas)

    async def on_turn_end(self, context: HookContext) -> Any:
        await asyncio.sleep(0)
        return super().on_turn_end(context)

    async def on_finish(self, context: HookContext, end: Finish | Error) -> Any:
        await asyncio.sleep(0)
        return super().on_turn_end(context)


class Twice(BaseHook):
    """Rewrites: every prompt in mid-stream is two."""

    def on_prompt(self, context: HookContext, messages: Sequence[Message]) -> Any:
        if not context.running:
            return messages
        return [each for message in messages for each in (Message("system", "!"), message)]


class Walk:
    """One generation, and what is done to it."""

    def __init__(self, path: Path, hooks: Sequence[Any]) -> None:
        self.path = path
        self.hooks = hooks
        self.accepted: list[str] = []
        self.count = 0

    async def open(self) -> None:
        self.house = await House(SCRIPT, store=SqliteStore(self.path), hooks=self.hooks).open()

    async def begin(self) -> None:
        await self.open()
        self.ask()

    def ask(self) -> None:
        self.generation: Any = self.house.ask(leaving=CONTINUE)
        self.seen = Witness(self.generation)

    async def tokens(self, count: int) -> None:
        more = asyncio.ensure_future(self.seen.token(len(self.seen.tokens) + count))
        end = asyncio.ensure_future(self.seen.ended.wait())
        wanted = {more, end}
        while not (await asyncio.wait(wanted, timeout=0.01, return_when="FIRST_COMPLETED"))[0]:
            self.house.service.tick(time.monotonic())
        more.cancel()
        end.cancel()

    async def prompts(self, count: int) -> None:
        texts = [f"p{self.count + i}" for i in range(count)]
        self.count += count
        asked = [self.house.service.prompt(self.generation, Message("user", t)) for t in texts]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for text, answer in zip(texts, answers, strict=True):
            if isinstance(answer, HeadraceError):
                assert answer.code.value == "conflict", answer
            else:
                assert not isinstance(answer, BaseException), answer
                self.accepted.append(text)

    async def crash(self, _: int) -> None:
        self.house.engines[0].crash()
        await self.house.engines[0].load()
        self.house.service.tick(time.monotonic())

    async def restart(self, _: int) -> None:
        """As ``kill -9`` leaves it."""
        store: Any = self.house.store
        await store.abandon()
        await self.open()
        try:
            self.generation = await self.house.service.find(self.generation.id, "default")
        except HeadraceError:  # nothing of it was stored yet, so nobody was told anything
            self.ask()
        else:
            self.seen = Witness(self.generation)

    async def abort(self, _: int) -> None:
        self.house.service.cancel(self.generation)

    async def judge(self) -> None:
        while (
            not self.seen.ended.is_set()
        ):  # an engine that lost a run is tried again after a pause
            self.house.service.tick(time.monotonic())
            await asyncio.sleep(0.005)
        said = await self.seen.whole()  # numbers without holes, one end
        events = self.seen.events_seen
        shown = [event for event in events if isinstance(event, Prompt)]
        assert [event.content for event in shown if event.role == "user"] == self.accepted
        before = 0
        turns = getattr(self.generation, "turns", ())
        for event, turn in zip(shown, turns, strict=False):
            before += len(turn.said.text)
            text = "".join(e.text for e in events[: event.seq] if isinstance(e, Token))
            assert len(text) == before
        assert WHOLE.startswith(said)
        end = events[-1]
        if isinstance(end, Finish):
            assert said == WHOLE
            assert end.usage.completion_tokens == len(WORDS)
        assert self.house.in_use == self.house.engines[0].running == 0
        await self.house.store.close()


STEPS = st.tuples(
    st.sampled_from(["tokens", "tokens", "prompts", "prompts", "crash", "restart", "abort"]),
    st.integers(1, 6),
)
HOOKS = st.sampled_from([(), (Holding,), (Twice, Holding), (Waiting,), (Holding, Waiting)])


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=9), HOOKS)
def test_whatever_happens_the_log_is_whole_and_the_text_is_the_models_own(
    steps: list[tuple[str, int]], hooks: tuple[type[BaseHook], ...]
) -> None:
    async def main(folder: str) -> None:
        async with asyncio.timeout(20):
            walk = Walk(Path(folder) / "h.db", [hook() for hook in hooks])
            await walk.begin()
            for name, count in steps:
                if name == "restart" and Waiting in hooks:
                    continue  # hooks that await cannot be replayed: it would end
                await getattr(walk, name)(count)
            await walk.judge()

    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main(folder))
