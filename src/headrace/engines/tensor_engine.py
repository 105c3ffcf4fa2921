"""What the server asks of anything that computes tensors: a loaded version of a model.

All of it blocks, on threads of whoever calls: :class:`TensorEngine` has none of its own that call back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from headrace.domain.tensors import TensorSpec

Arrays = Mapping[str, Any]
"""Arrays of numpy by the names of their tensors."""

BatchDimension = Literal["named", "free", "none"]
"""Whether all inputs and outputs have a first dimension that is free: ``named`` where the model says that it is the
batch."""


class TensorEngine(Protocol):
    """One version, loaded. ``run`` may be called by several threads at once."""

    @property
    def platform(self) -> str:
        """As Triton names it, backend and format: ``onnxruntime_onnx``."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def batch_dimension(self) -> BatchDimension: ...
    @property
    def steady(self) -> bool:
        """Whether the shapes of its inputs tell how much there is to do."""

    def run(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        """Compute the named outputs. ``into`` as in :class:`~headrace.domain.tensors.TensorRequest`. Raises
        ``INVALID_REQUEST`` for what the model cannot compute of these inputs, else ``ENGINE_FAILED``."""

    def close(self) -> None:
        """Free its memory; nothing runs any more. Idempotent."""
