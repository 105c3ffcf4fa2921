"""Texts of many requests as one run: their tokens, padded to the longest, and a vector of each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, TensorSpec
from headrace.engines.joined_tensors import check_batch
from headrace.engines.tensor_engine import TensorEngine
from headrace.engines.tensor_runs import Pending
from headrace.engines.text_encoder import Pooling, no_number, padded, pooled


class PendingTexts(Pending, kw_only=True, eq=False):
    """``ids``: tokens of each text; ``length``: of the longest."""

    ids: Sequence[Sequence[int]]


class JoinedTexts:
    """Implements ``tensor_runs.Joining``. ``inputs``: of the model; ``output``: that of its that vectors are made of;
    ``pad_id``: the token that is padding."""

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        output: str,
        pad_id: int,
        pooling: Pooling = "mean",
        normalize: bool = True,
    ) -> None:
        """Raises ``UNSUPPORTED`` for a model with an input that no text has."""
        self._inputs = [_known(spec) for spec in inputs]
        self._outputs = (output,)
        self._pad_id = pad_id
        self._pooling = pooling
        self._normalize = normalize

    def kind(self, pending: Sequence[PendingTexts], rows: int) -> Hashable:
        """The shape of the tokens."""
        return self, sum(len(one.ids) for one in pending), _longest(pending)

    def compute(
        self, engine: TensorEngine, pending: Sequence[PendingTexts]
    ) -> Sequence[Sequence[Any] | HeadraceError]:
        """The vectors of each, or that the model said nothing of it: JSON has no NaN, and no search finds one."""
        rows = [row for one in pending for row in one.ids]
        ids, mask = padded(rows, _longest(pending), self._pad_id)
        inputs = {spec.name: _array(spec, ids, mask) for spec in self._inputs}
        made = engine.run(inputs, self._outputs, {})
        check_batch(made, len(rows))
        (output,) = made.values()
        vectors, sound = pooled(output, mask, self._pooling, self._normalize)
        answers: list[Sequence[Any] | HeadraceError] = []
        at = 0
        for one in pending:
            part = slice(at, at + len(one.ids))
            at = part.stop
            answers.append(vectors[part] if sound[part].all() else no_number())
        return answers


def _longest(pending: Sequence[PendingTexts]) -> int:
    return max(one.length for one in pending)


def _known(spec: TensorSpec) -> TensorSpec:
    """Raises ``UNSUPPORTED`` for an input that no text has."""
    if spec.name not in ("input_ids", "attention_mask", "token_type_ids", "position_ids"):
        text = (
            f"This model gives no embeddings: nobody knows what its input {spec.name} is of a text."
        )
        raise HeadraceError(Code.UNSUPPORTED, text, param="model")
    return spec


def _array(spec: TensorSpec, ids: Any, mask: Any) -> Any:
    match spec.name:
        case "input_ids":
            array = ids
        case "attention_mask":
            array = mask
        case "token_type_ids":
            array = np.zeros_like(ids)
        case _:
            array = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
    return array.astype(NUMPY_TYPES[spec.datatype], copy=False)
