"""Tensors, the models that take them, and what is asked of those. Names of types as in the Open Inference Protocol
(KServe V2, https://github.com/kserve/open-inference-protocol, "Tensor Data Types")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
]

NUMPY_TYPES: dict[Datatype, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "uint16",
    "BYTES": "object",
}
"""What ``numpy.dtype`` takes for each; numpy has no bfloat16."""


class TensorSpec(msgspec.Struct, frozen=True, gc=False):
    """A tensor that a model takes or gives. ``shape``: -1 where any length will do; with the dimension of the batch,
    where the model has one."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class Tensor(msgspec.Struct):
    """``array``: a ``numpy.ndarray`` of ``shape``, C-contiguous, little-endian; a view of somebody's memory where that
    can be (of a request's body, of shared memory). BF16 is in ``uint16``, BYTES are an object array of
    ``bytes``."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    array: Any


class TensorRequest(msgspec.Struct):
    """One inference. ``outputs``: names of those that are wanted, empty for all; ``version``: empty for the newest.
    ``into``: memory for outputs, by name: an array of ``uint8`` with one dimension, at least as long as the output's
    bytes, whose beginning the answer is then a view of; what has none, and BYTES, come in memory of their own. It may
    be an input's memory: the answer is right all the same.
    ``priority``: lower is sooner, 0 for the usual. ``timeout_s``: it is refused when it could not run by then."""

    model: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    version: str = ""
    id: str = ""
    into: Mapping[str, Any] = {}
    priority: int = 0
    timeout_s: float | None = None


class TensorResponse(msgspec.Struct):
    """``outputs``: in the model's order, or in that in which they were asked for."""

    model: str
    version: str
    outputs: Sequence[Tensor]
    id: str = ""


class TensorModel(msgspec.Struct, frozen=True):
    """A version of a model that takes tensors. ``max_batch_size``: rows of the first dimension that are run
    together, 0 if the model has no such dimension. ``state``: ``reason`` says more. ``loaded_at``: Unix seconds, 0
    while it is not. ``labels``: by output, the names of its classes."""

    name: str
    version: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    state: Literal["unloaded", "loading", "ready", "failed"]
    reason: str = ""
    loaded_at: float = 0.0
    size_bytes: int = 0
    labels: Mapping[str, Sequence[str]] = {}


class TensorCounts(msgspec.Struct):
    """What a version did since it was configured; times in seconds, summed. ``requests`` and ``rows`` that were
    answered, ``failed`` ones, ``runs`` of the engine, ``cancelled`` before they ran."""

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    rows: int = 0
    runs: int = 0
    queue_s: float = 0.0
    run_s: float = 0.0
    failed_s: float = 0.0
    last_at: float = 0.0
    runs_by_rows: dict[int, list[float]] = msgspec.field(default_factory=dict)
    """By rows of a run: how many there were, and their seconds."""
