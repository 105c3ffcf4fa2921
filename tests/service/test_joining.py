"""Who sends a request again gets the generation that there is; it is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import CANCEL, Caller, Leaving, Message, Once, Request, Sampling
from headrace.engines.script import Script
from headrace.protocols.port import Generation
from headrace.service import Limits
from headrace.streams.sqlite import SqliteStore

Run = Callable[[Coroutine[Any, Any, Any]], Any]
STOPS = Script(WORDS, hang_after=2)
GRACE = Leaving(30.0)


async def ask(
    house: House,
    key: str | None = "key",
    text: str = "hello",
    *,
    tenant: str = "default",
    retry: int | None = None,
    leaving: Leaving = GRACE,
    stream: bool = True,
    **sampling: Any,
) -> Generation:
    """As a protocol does."""
    messages = (Message("user", text),)
    request = Request("m", "chat", messages, sampling=Sampling(**sampling), stream=stream)
    once = None if key is None else Once(key)
    caller = Caller(tenant, leaving=leaving, once=once, retry=retry)
    if house.service.joins(request, caller):
        return await house.service.submit_once(request, caller, "native", {})
    return house.service.submit(request, caller, "native", {})


def computed(house: House) -> int:
    return sum(meter.admitted_count for meter in house.flow.meters.values())


def test_a_repeat_joins_what_runs_and_gets_what_has_finished(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, delay_ms=10)).open()
        first = await ask(house)
        reads = Witness(first)
        await reads.token(1)
        again = await ask(house)
        assert again is first
        assert await Witness(again).whole() == await reads.whole() == "".join(WORDS)
        later = await ask(house)
        assert later.id == first.id
        assert await Witness(later).whole() == "".join(WORDS)
        assert computed(house) == 1
        other = await ask(house, "another key")
        assert other.id != first.id
        assert await Witness(other).whole()
        assert computed(house) == 2
        await house.service.close(0.0)

    run(main())


def test_a_hundred_repeats_at_once_are_one(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        house = await House(store=SqliteStore(tmp_path / "headrace.db")).open()
        found = await asyncio.gather(*(ask(house) for _ in range(100)))
        assert len({one.id for one in found}) == 1
        texts = await asyncio.gather(*(Witness(one).whole() for one in found))
        assert set(texts) == {"".join(WORDS)}
        assert computed(house) == 1
        await house.service.close(0.0)
        await house.store.close()

    run(main())


def test_a_key_is_its_tenants_own(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        first = await ask(house, tenant="one")
        second = await ask(house, tenant="two")
        assert first.id != second.id
        await asyncio.gather(Witness(first).whole(), Witness(second).whole())
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("ended", [False, True])
def test_another_request_with_the_key_is_refused(run: Run, ended: bool) -> None:
    async def main() -> None:
        house = await House(Script(WORDS) if ended else STOPS).open()
        reads = Witness(await ask(house))
        await (reads.whole() if ended else reads.token(2))
        for other in ({"text": "something else"}, {"stream": False}, {"max_tokens": 3}):
            with pytest.raises(HeadraceError) as caught:
                await ask(house, **other)  # type: ignore[arg-type]
            assert caught.value.code is Code.KEY_REUSED
            assert caught.value.param == "Idempotency-Key"
        assert computed(house) == 1
        await house.service.close(0.0)

    run(main())


@pytest.mark.parametrize("how", ["failed", "cancelled", "deleted"])
def test_what_is_no_answer_is_computed_again(run: Run, how: str) -> None:
    async def main() -> None:
        broken = Script(WORDS, fail_after=2, fail_code=Code.INTERNAL) if how == "failed" else STOPS
        house = await House(broken).open()
        first = await ask(house)
        reads = Witness(first)
        if how != "failed":
            await reads.token(2)
            await (house.service.delete(first) if how == "deleted" else _cancel(house, first))
        await reads.ended.wait()
        second = await ask(house)
        assert second.id != first.id
        await house.service.close(0.0)

    async def _cancel(house: House, generation: Generation) -> None:
        house.service.cancel(generation)

    run(main())


@pytest.mark.parametrize("ended", [False, True])
def test_a_repeat_after_a_crash_joins(run: Run, tmp_path: Path, ended: bool) -> None:
    path = tmp_path / "headrace.db"

    async def before() -> str:
        store = SqliteStore(path)
        house = await House(Script(WORDS) if ended else STOPS, store=store).open()
        first = await ask(house)
        reads = Witness(first)
        await (reads.whole() if ended else reads.token(2))
        await store.abandon()
        return first.id

    async def after(id: str) -> None:
        house = await House(store=SqliteStore(path)).open()
        again = await ask(house)
        assert again.id == id
        assert await Witness(again).whole() == "".join(WORDS)
        await house.service.close(0.0)
        await house.store.close()

    id = run(before())
    run(after(id))


def test_without_a_key_two_are_two(run: Run) -> None:
    async def main() -> None:
        house = await House().open()
        first, second = await ask(house, None), await ask(house, None)
        assert first.id != second.id
        await asyncio.gather(Witness(first).whole(), Witness(second).whole())
        await house.service.close(0.0)

    run(main())


def test_a_retry_without_a_key_joins_where_the_operator_wants_it(run: Run) -> None:
    async def main() -> None:
        house = await House(STOPS, limits=Limits(join_retries_s=5.0)).open()
        first = await ask(house, None, retry=0, leaving=CANCEL)
        left = Witness(first)
        await left.token(2)
        left.subscription.close()  # the connection was lost: that alone cancels nothing
        assert (await ask(house, None, retry=1)).id == first.id
        assert (await ask(house, None)).id == first.id
        second = await ask(house, None, retry=0)  # its client says that this is a new one
        assert second.id != first.id
        assert (await ask(house, None, retry=1)).id == second.id
        assert (await ask(house, None, "other", retry=1)).id not in (first.id, second.id)
        assert (await ask(house, None, tenant="other", retry=1)).id not in (first.id, second.id)
        await house.service.close(0.0)

    run(main())


def test_the_window_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        house = await House(limits=Limits(join_retries_s=5.0)).open()
        first = await ask(house, None)
        await Witness(first).whole()
        assert (await ask(house, None)).id == first.id
        import time

        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 6.0)
        assert (await ask(house, None)).id != first.id
        await house.service.close(0.0)

    run(main())


def test_a_model_that_shares_runs_computes_what_is_determined_once(run: Run) -> None:
    async def main() -> None:
        house = await House(STOPS, shares=True, slots=8).open()
        first = await ask(house, None, temperature=0.0)
        reads = Witness(first)
        await reads.token(2)
        assert (await ask(house, None, temperature=0.0)) is first
        assert (await ask(house, None, temperature=0.0, tenant="other")) is not first
        assert (await ask(house, None, temperature=0.5)) is not first
        seeded = await ask(house, None, seed=4)
        assert (await ask(house, None, seed=4)) is seeded
        house.service.cancel(first)
        await reads.ended.wait()
        assert (await ask(house, None, temperature=0.0)) is not first
        await house.service.close(0.0)

    run(main())


def test_nothing_is_remembered_of_what_has_ended(run: Run) -> None:
    async def main() -> None:
        house = await House(shares=True).open()
        await Witness(await ask(house)).whole()
        await Witness(await ask(house, None, seed=1)).whole()
        joining = house.service._joining
        assert joining._running == {}
        assert joining._asking == {}
        await house.service.close(0.0)

    run(main())
