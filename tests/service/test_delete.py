"""A generation is deleted in whatever state it is: it ends first, for all who read it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import CONTINUE, Message, Request
from headrace.engines.script import Script
from headrace.streams.bounds import PASSING_AT_MOST_S
from headrace.streams.memory import MemoryStore
from headrace.streams.sqlite import SqliteStore

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Slow:
    """A hook whose end takes time."""

    async def on_finish(self, context: Any, end: Any) -> Sequence[Delta]:
        return []


async def assert_gone(house: House, id: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        await house.service.find(id, "default")
    assert caught.value.code is Code.GENERATION_NOT_FOUND
    assert await house.service.list("default", None, 10) == []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("hooks", [(), (Slow(),)])
@pytest.mark.parametrize("state", ["waits", "begins", "runs", "ended", "kept"])
def test_it_is_gone_and_its_slot_is_free(
    run: Run, tmp_path: Path, kind: str, hooks: Any, state: str
) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "headrace.db") if kind == "sqlite" else None
        script = Script(WORDS) if state in ("ended", "kept") else Script(WORDS, hang_after=2)
        house = await House(script, slots=1, store=store, hooks=hooks).open()
        before = Witness(house.ask()) if state == "waits" else None
        generation = house.ask(leaving=CONTINUE)
        witness = Witness(generation)
        if state == "runs":
            await witness.token(2)
        elif state in ("ended", "kept"):
            await witness.whole()
        if state == "kept":
            generation = await house.service.find(generation.id, "default")
        if before is not None:
            await before.token(2)

        await house.service.delete(generation)

        await witness.ended.wait()
        if state in ("ended", "kept"):
            assert witness.tokens == list(WORDS)
        else:
            assert witness.code == "cancelled"
        if before is not None:
            first = (await house.service.list("default", None, 10))[0]
            assert first.id != generation.id
            await house.service.delete(first)
            await before.ended.wait()
        await assert_gone(house, generation.id)
        assert house.in_use == 0
        await house.service.close(0.0)
        await house.store.close()

    run(main())


def test_a_scripted_engine_counts_words_and_has_no_tokens(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        request = Request("alias", "chat", (Message("user", "one two"),))
        assert await house.service.count_prompt(request) == 2
        for asked in (
            house.service.tokenize("m", "x", special=True, pieces=False),
            house.service.detokenize("m", [1]),
        ):
            with pytest.raises(HeadraceError) as caught:
                await asked
            assert caught.value.code is Code.UNSUPPORTED
        house.engines[0].crash()
        house.service.tick(1.0)
        with pytest.raises(HeadraceError) as caught:
            await house.service.count_prompt(request)
        assert caught.value.code is Code.MODEL_LOADING
        await house.service.close(0.0)

    run(main())


def test_what_is_not_to_be_kept_is_read_to_its_end_and_then_not_found(run: Run) -> None:
    async def main() -> None:
        now = [1000.0]
        store = MemoryStore(clock=lambda: now[0])
        house = await House(Script(WORDS, delay_ms=1), store=store).open()
        generation = house.ask(keep=False, leaving=CONTINUE)
        first = Witness(generation)
        await first.token(1)
        first.subscription.close()  # its client's connection broke
        found = await house.service.find(generation.id, "default")
        assert await Witness(found).whole() == "".join(WORDS)
        now[0] += PASSING_AT_MOST_S
        assert (await house.service.find(generation.id, "default")).state == "finished"
        now[0] += 1
        await assert_gone(house, generation.id)

    run(main())
