"""The batcher at work: who asks gets its own result, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.standing import Standing
from headrace.scheduling.batcher import BatchOptions, BatchQueue
from headrace.scheduling.batching import Batching

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Engine:
    """Doubles numbers, once it may. ``bad`` ones fail their run."""

    def __init__(self, bad: Sequence[int] = (), code: Code = Code.ENGINE_FAILED) -> None:
        self.runs: list[list[int]] = []
        self.bad = frozenset(bad)
        self.code = code
        self.may = asyncio.Event()
        self.may.set()
        self.began = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int | HeadraceError]:
        self.runs.append(list(items))
        self.began.set()
        await self.may.wait()
        if self.bad.intersection(items):
            raise HeadraceError(self.code, "bad")
        return [2 * item for item in items]


def batching_of(engine: Engine, size: int = 8, **queue: Any) -> Batching[int, int]:
    return Batching(engine, BatchOptions(size, queue=BatchQueue(**queue)))


async def held(engine: Engine, batching: Batching[int, int]) -> asyncio.Task[int]:
    """A run that waits for the engine."""
    engine.may.clear()
    task = asyncio.create_task(batching.submit(100))
    await engine.began.wait()
    return task


async def start(
    batching: Batching[int, int], items: Sequence[int], **fields: Any
) -> list[asyncio.Task[int]]:
    """They wait, all of them."""
    tasks = [asyncio.create_task(batching.submit(item, **fields)) for item in items]
    await asyncio.sleep(0)
    return tasks


def due_in(s: float) -> Standing:
    return Standing(deadline=monotonic() + s)


async def outcomes(tasks: Sequence[asyncio.Task[int]]) -> list[Any]:
    """Results, and codes of errors."""
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [one.code if isinstance(one, HeadraceError) else one for one in found]


def test_who_comes_in_one_turn_is_in_one_run(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        tasks = await start(batching, [1, 2, 3])
        assert await asyncio.gather(*tasks) == [2, 4, 6]
        assert engine.runs == [[1, 2, 3]]

    run(main())


def test_who_comes_during_a_run_is_in_the_next(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        first = await held(engine, batching)
        tasks = await start(batching, [1, 2])
        tasks += await start(batching, [3])
        assert (batching.waiting, batching.running) == (3, 1)
        engine.may.set()
        assert await asyncio.gather(first, *tasks) == [200, 2, 4, 6]
        assert engine.runs == [[100], [1, 2, 3]]
        assert (batching.waiting, batching.running) == (0, 0)

    run(main())


@pytest.mark.parametrize(("own_padding", "runs"), [(2, [[1, 2]]), (3, [[1], [2]])])
def test_what_requests_pad_themselves_counts_for_who_runs_together(
    run: Run, own_padding: int, runs: list[list[int]]
) -> None:
    """They are 80 elements together, of which 5 may be padding."""

    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        first = await held(engine, batching)
        padded = {"rows": 2, "length": 20, "padding": 0.0625}
        tasks = await start(batching, [1, 2], own_padding=own_padding, **padded)
        engine.may.set()
        await asyncio.gather(first, *tasks)
        assert engine.runs[1:] == runs

    run(main())


def test_the_next_run_begins_before_anybody_hears_of_the_last(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine, 1)
        heard: list[int] = []

        async def ask(item: int) -> None:
            await batching.submit(item)
            heard.append(len(engine.runs))

        await asyncio.gather(ask(1), ask(2))
        assert heard == [2, 2]

    run(main())


class AtOnce:
    """Triples numbers, those that are short."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.done: list[int] = []
        self.failure = failure

    def __call__(self, item: int) -> int | HeadraceError | None:
        if item > 9:
            return None
        self.done.append(item)
        if self.failure is not None:
            raise self.failure
        return HeadraceError(Code.INVALID_REQUEST, "seven") if item == 7 else 3 * item


def at_once(engine: Engine, compute: AtOnce, size: int = 1) -> Batching[int, int]:
    return Batching(engine, BatchOptions(size), compute)


def test_a_short_run_of_its_own_is_done_without_a_turn_of_the_loop(run: Run) -> None:
    async def main() -> None:
        engine, compute = Engine(), AtOnce()
        batching = at_once(engine, compute)
        submitted = batching.submit(1)
        with pytest.raises(StopIteration) as over:
            submitted.send(None)
        assert over.value.value == 3
        assert await batching.submit(10) == 20
        assert (compute.done, engine.runs) == ([1], [[10]])
        with pytest.raises(HeadraceError, match="seven"):
            await batching.submit(7)
        await batching.close()
        with pytest.raises(HeadraceError) as closed:
            await batching.submit(1)
        assert closed.value.code == Code.SHUTTING_DOWN

    run(main())


def test_but_one_a_turn_as_it_holds_the_loop_up(run: Run) -> None:
    async def main() -> None:
        engine, compute = Engine(), AtOnce()
        batching = at_once(engine, compute)
        assert await asyncio.gather(*map(batching.submit, [1, 2, 3])) == [3, 4, 6]
        assert (compute.done, engine.runs) == ([1], [[2], [3]])
        for item in (4, 5):
            await batching.submit(item)
        assert (compute.done, engine.runs[2:]) == ([1, 4], [[5]])

    run(main())


def test_not_where_it_might_be_in_a_run_with_others(run: Run) -> None:
    async def main() -> None:
        engine, compute = Engine(), AtOnce()
        assert await at_once(engine, compute, 2).submit(1) == 2
        assert not compute.done

    run(main())


def test_nor_before_those_who_wait_nor_beside_a_run(run: Run) -> None:
    async def main() -> None:
        engine, compute = Engine(), AtOnce()
        batching = at_once(engine, compute)
        first = await held(engine, batching)
        tasks = await start(batching, [11, 1])
        engine.may.set()
        assert await asyncio.gather(first, *tasks) == [200, 22, 2]
        tasks = await start(batching, [12, 2])
        assert await asyncio.gather(*tasks) == [24, 4]
        assert not compute.done

    run(main())


def test_nor_too_late_nor_with_more_rows_than_it_may_have(run: Run) -> None:
    async def main() -> None:
        compute = AtOnce()
        batching = at_once(Engine(), compute)
        assert await outcomes(await start(batching, [1], standing=due_in(-1))) == [
            Code.QUEUE_TIMEOUT
        ]
        assert await outcomes(await start(batching, [1], rows=2)) == [Code.INVALID_REQUEST]
        assert not compute.done

    run(main())


@pytest.mark.parametrize("failure", [HeadraceError(Code.ENGINE_FAILED, "no"), ValueError("no")])
def test_its_failure_is_its_callers(run: Run, caplog: Any, failure: Exception) -> None:
    async def main() -> None:
        batching = at_once(Engine(), AtOnce(failure))
        code = failure.code if isinstance(failure, HeadraceError) else Code.INTERNAL
        assert await outcomes(await start(batching, [1])) == [code]

    run(main())
    assert ("ValueError: no" in caplog.text) == isinstance(failure, ValueError)


def test_who_leaves_before_its_run_is_not_computed(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        await held(engine, batching)
        leaves, stays = await start(batching, [1, 2])
        leaves.cancel()
        engine.may.set()
        assert await stays == 4
        assert engine.runs == [[100], [2]]
        assert leaves.cancelled()

    run(main())


def test_who_leaves_during_its_run_disturbs_nobody(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        engine.may.clear()
        leaves, stays = await start(batching, [1, 2])
        await engine.began.wait()
        leaves.cancel()
        engine.may.set()
        assert await stays == 4

    run(main())


def test_one_bad_input_fails_alone(run: Run) -> None:
    async def main() -> None:
        engine = Engine(bad=[5])
        batching = batching_of(engine)
        tasks = await start(batching, range(8))
        expected = [0, 2, 4, 6, 8, Code.ENGINE_FAILED, 12, 14]
        assert await outcomes(tasks) == expected
        assert len(engine.runs) == 7  # itself, and twice for each halving

    run(main())


def test_an_error_in_an_items_place_is_that_items(run: Run) -> None:
    async def main() -> None:
        async def engine(items: Sequence[int]) -> Sequence[int | HeadraceError]:
            bad = HeadraceError(Code.INVALID_REQUEST, "bad")
            return [bad if item == 1 else item for item in items]

        batching: Batching[int, int] = Batching(engine, BatchOptions(8))
        tasks = await start(batching, [0, 1, 2])
        assert await outcomes(tasks) == [0, Code.INVALID_REQUEST, 2]

    run(main())


@pytest.mark.parametrize("code", [Code.ENGINE_FAILED, Code.ENGINE_UNAVAILABLE])
def test_a_broken_engine_is_not_asked_once_an_item(run: Run, code: Code) -> None:
    async def main() -> None:
        engine = Engine(bad=range(64), code=code)
        batching = batching_of(engine, 64)
        tasks = await start(batching, range(64))
        assert await outcomes(tasks) == [code] * 64
        assert len(engine.runs) <= (29 if code is Code.ENGINE_FAILED else 1)

    run(main())


@given(st.sets(st.integers(0, 31), max_size=2))
@settings(max_examples=25, deadline=None)
def test_up_to_two_bad_inputs_are_found_among_all(bad: set[int]) -> None:
    async def main() -> None:
        engine = Engine(bad=sorted(bad))
        batching = batching_of(engine, 32)
        tasks = await start(batching, range(32))
        expected = [Code.ENGINE_FAILED if item in bad else 2 * item for item in range(32)]
        assert await outcomes(tasks) == expected

    asyncio.run(main())


def test_a_crash_or_results_that_are_too_few_leave_nobody_waiting(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def crashes(items: Sequence[int]) -> Sequence[int]:
            raise ZeroDivisionError

        async def loses(items: Sequence[int]) -> Sequence[int]:
            return items[1:]

        for engine in (crashes, loses):
            batching: Batching[int, int] = Batching(engine, BatchOptions(8))
            tasks = await start(batching, [1, 2])
            assert await outcomes(tasks) == [Code.INTERNAL] * 2

    run(main())
    assert "2 results" not in caplog.text
    assert "1 results for 2 items" in caplog.text


def test_nobody_is_late_in_silence(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        first = await held(engine, batching)
        (late,) = await start(batching, [1], standing=due_in(0.01))
        assert await outcomes([late]) == [Code.QUEUE_TIMEOUT]
        assert not first.done()
        engine.may.set()
        await first
        assert engine.runs == [[100]]

    run(main())


def test_a_deadline_that_comes_sooner_than_the_first_is_kept_too(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        await held(engine, batching)
        patient, hasty = (await start(batching, [1], standing=due_in(9.0)))[0], None
        (hasty,) = await start(batching, [2], standing=due_in(0.01))
        assert await outcomes([hasty]) == [Code.QUEUE_TIMEOUT]
        engine.may.set()
        assert await patient == 2

    run(main())


def test_who_gives_way_is_told(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine, limit=1)
        await held(engine, batching)
        (least,) = await start(batching, [1], standing=Standing(1, sheddable=True))
        assert batching.full
        (urgent,) = await start(batching, [2], standing=Standing(overflow="shed"))
        assert await outcomes([least]) == [Code.QUEUE_FULL]
        engine.may.set()
        assert await urgent == 4

    run(main())


def test_closing_refuses_who_waits_and_lets_the_run_end(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching = batching_of(engine)
        first = await held(engine, batching)
        waiting = await start(batching, [1, 2])
        closing = asyncio.create_task(batching.close())
        assert await outcomes(waiting) == [Code.SHUTTING_DOWN] * 2
        assert not closing.done()
        engine.may.set()
        await closing
        assert await first == 200
        with pytest.raises(HeadraceError) as refused:
            await batching.submit(3)
        assert refused.value.code is Code.SHUTTING_DOWN
        assert engine.runs == [[100]]

    run(main())


def test_each_caller_has_its_results_in_the_order_it_asked(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        batching: Batching[int, int] = Batching(engine, BatchOptions(3, instances=2))
        order: list[int] = []

        async def ask(item: int) -> None:
            order.append(await batching.submit(item, key=item % 2))

        await asyncio.gather(*[ask(item) for item in range(20)])
        for parity in (0, 1):
            assert [one for one in order if one // 2 % 2 == parity] == [
                2 * item for item in range(parity, 20, 2)
            ]
        assert all(
            len(items) <= 3 and len({item % 2 for item in items}) == 1 for items in engine.runs
        )

    run(main())


def test_an_error_leaves_no_reference_cycle(run: Run) -> None:
    async def main() -> None:
        batching = batching_of(Engine(bad=[1]))
        await outcomes(await start(batching, [1, 2]))  # whatever is made once
        gc.collect()
        gc.disable()
        try:
            await outcomes(await start(batching, [1, 2]))
            await asyncio.sleep(0)
            assert gc.collect() == 0
        finally:
            gc.enable()

    run(main())


def test_no_deadline_is_none(run: Run) -> None:
    async def main() -> None:
        assert (
            await batching_of(Engine(), timeout_s=1e9).submit(
                1, standing=Standing(deadline=math.inf)
            )
            == 2
        )

    run(main())
