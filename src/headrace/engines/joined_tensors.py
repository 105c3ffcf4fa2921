"""Requests for tensors as one run: joined along their first dimension, its outputs divided again.

A request that runs alone is not copied: its arrays are the engine's inputs, and its memory for outputs is written by
the engine.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec
import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import TensorSpec
from headrace.engines.tensor_engine import Arrays, TensorEngine
from headrace.engines.tensor_memory import Array, moved
from headrace.engines.tensor_runs import Pending

Outputs = dict[str, Array]


class PendingTensors(Pending, kw_only=True, eq=False):
    """``into``: memory for outputs, as of :class:`~headrace.domain.tensors.TensorRequest`."""

    inputs: Arrays
    outputs: Sequence[str]
    into: Arrays = msgspec.field(default_factory=dict)


class JoinedTensors:
    """Implements ``tensor_runs.Joining``. ``inputs`` and ``outputs``: of the model."""

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._names = [spec.name for spec in inputs]
        self._specs = {spec.name: spec for spec in outputs}

    def kind(self, pending: Sequence[PendingTensors], rows: int) -> Hashable:
        """The shapes of all inputs. The first dimension is rows only where requests are joined."""
        inputs = pending[0].inputs
        shapes = [inputs[name].shape for name in self._names]
        return tuple(shapes if len(pending) == 1 else [(rows, *shape[1:]) for shape in shapes])

    def compute(
        self, engine: TensorEngine, pending: Sequence[PendingTensors]
    ) -> Sequence[Outputs | HeadraceError]:
        """The outputs of each, or what is wrong with its own."""
        if len(pending) > 1:
            return self._joined(engine, pending)
        one = pending[0]
        return [dict(engine.run(one.inputs, one.outputs, one.into))]

    def _joined(
        self, engine: TensorEngine, pending: Sequence[PendingTensors]
    ) -> Sequence[Outputs | HeadraceError]:
        first = pending[0]
        inputs = {
            name: np.concatenate([one.inputs[name] for one in pending]) for name in first.inputs
        }
        outputs = list(dict.fromkeys(name for one in pending for name in one.outputs))
        made = engine.run(inputs, outputs, {})
        check_batch(made, sum(one.rows for one in pending))
        return self._divided(pending, made)

    def _divided(
        self, pending: Sequence[PendingTensors], made: Arrays
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

    def _given(self, one: PendingTensors, name: str, array: Array) -> Array:
        return moved(array, self._specs[name], one.into[name]) if name in one.into else array


def check_batch(made: Arrays, rows: int) -> None:
    """Raise ``ENGINE_FAILED`` for an output of a run that has not a row for each of the inputs'."""
    for name, array in made.items():
        if not array.ndim or len(array) != rows:
            text = (
                f"The output {name} of a run of {rows} rows has the shape {list(array.shape)}: the first dimension "
                "of this model is no batch; set max_batch_size = 0 for it."
            )
            raise HeadraceError(Code.ENGINE_FAILED, text)
