"""Where runs of an engine are done: on its threads, or in the event loop where that is quicker."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from headrace.domain.tensors import TensorSpec
from headrace.engines.joined_tensors import JoinedTensors, PendingTensors
from headrace.engines.tensor_engine import Arrays
from headrace.engines.tensor_runs import TensorRuns


class Noting:
    """An engine that notes on which threads it runs; ``y`` is ``x``."""

    platform = "noting"
    batch_dimension: Any = "named"

    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 1)),)
    outputs = (TensorSpec("y", "FP32", (-1, 1)),)

    def __init__(self, *, steady: bool = True) -> None:
        self.steady = steady
        self.threads: list[threading.Thread] = []
        self.failure: Exception | None = None

    def run(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        self.threads.append(threading.current_thread())
        if self.failure is not None:
            raise self.failure
        return dict.fromkeys(outputs, inputs["x"])

    def close(self) -> None:
        self.threads.append(threading.current_thread())


def pending(rows: int = 1) -> PendingTensors:
    return asked({"x": np.ones((rows, 1), np.float32)}, rows)


def asked(inputs: Arrays, rows: int = 1) -> PendingTensors:
    specs = [TensorSpec(name, "FP32", (-1, -1)) for name in sorted(inputs)]
    joining = JoinedTensors(specs, Noting.outputs)
    return PendingTensors(joining=joining, inputs=inputs, outputs=["y"], rows=rows)


def runs_of(
    engine: Noting, quiet: Callable[[], bool] = lambda: True, threads: int = 1
) -> TensorRuns:
    return TensorRuns(engine, threads, "m:1", lambda rows, seconds: None, quiet)


def here(engine: Noting) -> list[bool]:
    """Whether each run was on the thread of the test."""
    return [thread is threading.current_thread() for thread in engine.threads]


def test_the_first_run_of_a_kind_is_on_a_thread_and_what_was_brief_then_in_the_loop() -> None:
    engine = Noting()

    async def main() -> None:
        runs = runs_of(engine)
        await runs.run([pending()])
        assert here(engine) == [False]
        while not here(engine)[-1]:  # on a busy machine a run may have taken long
            await runs.run([pending()])
        (made,) = await runs.run([pending(2)])
        assert isinstance(made, dict)
        assert made["y"].shape == (2, 1)
        await runs.close()

    asyncio.run(main())
    assert here(engine)[-2:] == [False, False]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_whose_shapes_tell_nothing_is_never_in_the_loop(threads: int) -> None:
    engine = Noting(steady=False)

    async def main() -> None:
        runs = runs_of(engine, threads=threads)
        for _ in range(3):
            await runs.run([pending()])
        await runs.close()

    asyncio.run(main())
    assert here(engine) == [False] * 4


def test_lengths_that_are_no_batch_and_the_order_of_inputs_tell_kinds_apart() -> None:
    """What one shape took says nothing of another that is a million times longer."""
    engine = Noting()
    engine.inputs = tuple(TensorSpec(name, "FP32", (-1, -1)) for name in "xz")

    async def main() -> None:
        runs = runs_of(engine)
        small, large = np.ones((1, 1), np.float32), np.ones((1, 9), np.float32)
        given: Arrays = {"x": small, "z": large}
        while not engine.threads or not here(engine)[-1]:
            await runs.run([asked(given)])
        for x, z in ((np.ones((7, 1), np.float32), large), (large, small)):
            await runs.run([asked({"z": z, "x": x})])
            assert not here(engine)[-1]
        await runs.close()

    asyncio.run(main())


def test_an_engines_failure_is_told_on_both_ways() -> None:
    engine = Noting()

    async def main() -> None:
        runs = runs_of(engine)
        while not engine.threads or not here(engine)[-1]:
            await runs.run([pending()])
        engine.failure = ValueError("broken")
        for kind in (1, 2):
            with pytest.raises(ValueError, match="broken"):
                await runs.run([pending(kind)])
        await runs.close()

    asyncio.run(main())
    assert here(engine)[-2:] == [False, False]


def test_at_once_it_is_done_only_where_its_time_is_known_and_counted_then() -> None:
    engine, counted = Noting(), list[int]()

    async def main() -> None:
        runs = TensorRuns(
            engine, 1, "m:1", lambda rows, seconds: counted.append(rows), lambda: True
        )
        one = pending()
        assert runs.run_at_once(one) is None
        assert not engine.threads
        while (made := runs.run_at_once(one)) is None:
            await runs.run([pending()])
        assert isinstance(made, dict)
        assert made["y"] is one.inputs["x"]
        assert one.began_at
        assert len(counted) == len(engine.threads)
        await runs.close()

    asyncio.run(main())


def test_nothing_of_a_run_is_held_when_it_is_over() -> None:
    """There are clients' pages among its arrays."""

    async def main() -> None:
        runs = runs_of(Noting(steady=False))
        one = pending()
        gone = weakref.ref(one.inputs["x"])
        await runs.run([one])
        del one
        await runs.run([pending()])  # so that the thread is done with the first
        gc.collect()
        assert gone() is None
        await runs.close()

    asyncio.run(main())
