"""Requests for one version as runs of its engine: joined along their first dimension, divided again.

A request that runs alone is not copied: its arrays are the engine's inputs, and its memory for outputs is written by
the engine. Runs are on threads of this version's own, as many as it may have at once, unless handing one over would
take longer than it does: see :mod:`headrace.engines.run_times`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from time import monotonic

import msgspec
import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.run_threads import RunThreads
from headrace.engines.run_times import RunTimes
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


Quiet = Callable[[], bool]
"""Whether nobody else is being served."""


class TensorRuns:
    """The runs of one loaded version. ``threads``: how many at once. ``quiet``: asked on the event loop, before a run
    that may hold it up; not where runs are meant to be beside each other."""

    def __init__(
        self, engine: TensorEngine, threads: int, name: str, ran: Ran, quiet: Quiet
    ) -> None:
        self._engine = engine
        self._specs = {spec.name: spec for spec in engine.outputs}
        self._names = [spec.name for spec in engine.inputs]
        self._threads = RunThreads(threads, f"tensors {name}")
        self._times = RunTimes()
        self._ran = ran
        self._quiet = quiet if threads == 1 else bool

    async def run(self, pending: Sequence[Pending]) -> Sequence[Outputs | HeadraceError]:
        """The outputs of each, or what is wrong with its own. Raises :class:`HeadraceError` if all failed together."""
        began = monotonic()
        rows = 0
        for one in pending:
            one.began_at = began
            rows += one.rows
        kind = self._kind(pending, rows)
        if self._may_hold_up(kind):
            made = self._compute(kind, pending)
        else:
            made = await self._threads.run(self._compute, kind, pending)
        self._ran(rows, monotonic() - began)
        return made

    def run_at_once(self, one: Pending) -> Outputs | HeadraceError | None:
        """The same of one request, in the event loop; None if that is not where it should be done. Raises as
        :meth:`run`."""
        pending = (one,)
        kind = self._kind(pending, one.rows)
        if not self._may_hold_up(kind):
            return None
        one.began_at = began = monotonic()
        (made,) = self._compute(kind, pending)
        self._ran(one.rows, monotonic() - began)
        return made

    async def close(self) -> None:
        """Free the engine, once its runs are over."""
        await self._threads.run(self._engine.close)
        self._threads.close()

    def _may_hold_up(self, kind: Hashable) -> bool:
        return self._engine.steady and self._times.may_hold_up(kind, self._quiet)

    def _kind(self, pending: Sequence[Pending], rows: int) -> Hashable:
        """The shapes of all inputs. The first dimension is rows only where requests are joined."""
        inputs = pending[0].inputs
        shapes = [inputs[name].shape for name in self._names]
        return tuple(shapes if len(pending) == 1 else [(rows, *shape[1:]) for shape in shapes])

    def _compute(
        self, kind: Hashable, pending: Sequence[Pending]
    ) -> Sequence[Outputs | HeadraceError]:
        began = monotonic()
        try:
            return self._alone(pending[0]) if len(pending) == 1 else self._joined(pending)
        finally:
            self._times.took(kind, monotonic() - began)

    def _alone(self, one: Pending) -> Sequence[Outputs | HeadraceError]:
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
