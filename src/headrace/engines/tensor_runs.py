"""Requests for one version as runs of its engine: joined along their first dimension, divided again.

A request that runs alone is not copied: its arrays are the engine's inputs, and its memory for outputs is written by
the engine. Runs are on threads of this version's own, as many as it may have at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import msgspec
import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.tensor_engine import Arrays, TensorEngine
from headrace.engines.tensor_memory import Array, moved

Outputs = dict[str, Array]


class Pending(msgspec.Struct, eq=False):
    """A request on its way into a run. ``rows``: of the first dimension of its inputs; 1 where they have none.
    ``came_at``: monotonic seconds; ``began_at``: of its run, 0 until then."""

    inputs: Arrays
    outputs: Sequence[str]
    into: Arrays = {}
    rows: int = 1
    came_at: float = 0.0
    began_at: float = 0.0


Ran = Callable[[int, float], None]
"""Hears of a run of the engine: how many rows, how many seconds."""


class TensorRuns:
    """The runs of one loaded version. ``threads``: how many at once."""

    def __init__(self, engine: TensorEngine, threads: int, name: str, ran: Ran) -> None:
        self._engine = engine
        self._specs = {spec.name: spec for spec in engine.outputs}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"tensors {name}")
        self._ran = ran

    async def run(self, pending: Sequence[Pending]) -> Sequence[Outputs | HeadraceError]:
        """The outputs of each, or what is wrong with its own. Raises :class:`HeadraceError` if all failed together."""
        began = monotonic()
        for one in pending:
            one.began_at = began
        compute = self._alone if len(pending) == 1 else self._joined
        made = await asyncio.get_running_loop().run_in_executor(self._pool, compute, pending)
        self._ran(sum(one.rows for one in pending), monotonic() - began)
        return made

    async def close(self) -> None:
        """Free the engine, once its runs are over."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._engine.close)
        self._pool.shutdown(wait=False)

    def _alone(self, pending: Sequence[Pending]) -> Sequence[Outputs | HeadraceError]:
        (one,) = pending
        return [dict(self._engine.run(one.inputs, one.outputs, one.into))]

    def _joined(self, pending: Sequence[Pending]) -> Sequence[Outputs | HeadraceError]:
        first = pending[0]
        inputs = {
            name: np.concatenate([one.inputs[name] for one in pending]) for name in first.inputs
        }
        outputs = list(dict.fromkeys(name for one in pending for name in one.outputs))
        rows = sum(one.rows for one in pending)
        made = self._engine.run(inputs, outputs, {})
        for name, array in made.items():
            if not array.ndim or len(array) != rows:
                raise _no_batch(name, array.shape, rows)
        return self._divided(pending, made)

    def _divided(
        self, pending: Sequence[Pending], made: Arrays
    ) -> Sequence[Outputs | HeadraceError]:
        answers: list[Outputs | HeadraceError] = []
        at = 0
        for one in pending:
            part = slice(at, at + one.rows)
            at += one.rows
            try:
                answers.append(
                    {name: self._given(one, name, made[name][part]) for name in one.outputs}
                )
            except HeadraceError as error:
                answers.append(error)
        return answers

    def _given(self, one: Pending, name: str, array: Array) -> Array:
        return moved(array, self._specs[name], one.into[name]) if name in one.into else array


def _no_batch(name: str, shape: Sequence[int], rows: int) -> HeadraceError:
    text = (
        f"The output {name} of a run of {rows} rows has the shape {list(shape)}: the first dimension "
        "of this model is no batch; set max_batch_size = 0 for it."
    )
    return HeadraceError(Code.ENGINE_FAILED, text)
