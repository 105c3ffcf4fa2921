"""Two ONNX files beside each other: size, speed, and how far their outputs differ for the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime

from headrace.domain.errors import Code, HeadraceError
from headrace.models.onnx_weights import size_bytes

Inputs = Mapping[str, np.ndarray[Any, Any]]

FREE_LENGTH = 16
"""Of a dimension that may have any length, and is no batch."""
MIN_RUNS, MEASURE_S = 5, 0.3
"""A run's time is the median of so many runs, and of as many as so long takes."""

_TYPES = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor(u{name})": f"u{name}" for name in ("int8", "int16", "int32", "int64")},
}


class Difference(msgspec.Struct, frozen=True):
    """Of one output: the largest, relative to the largest value that there was, and how much both point the same way
    (cosine; 1: they do)."""

    output: str
    largest: float
    relative: float
    cosine: float


class Look(msgspec.Struct, frozen=True):
    """One file: its bytes, with those of the weights that stand beside it, and seconds of a run."""

    size_bytes: int
    run_s: float
    outputs: Sequence[tuple[str, np.ndarray[Any, Any]]]


def look(path: Path, inputs: Inputs | None) -> Look:
    """Run a model. ``inputs``: None for some that it takes. Raises ``ENGINE_UNAVAILABLE`` if it cannot be loaded,
    ``INVALID_REQUEST`` if it does not take them."""
    session = _session(path)
    given = dict(inputs or sample(session))
    names = [one.name for one in session.get_outputs()]
    try:
        outputs = session.run(names, given)
    except Exception as error:
        first = " ".join(str(error).split())[:400]
        text = f"the model does not take these inputs; name a file of inputs: {first}"
        raise HeadraceError(Code.INVALID_REQUEST, text) from error
    times: list[float] = []
    until = time.perf_counter() + MEASURE_S
    while len(times) < MIN_RUNS or time.perf_counter() < until:
        began = time.perf_counter()
        session.run(names, given)
        times.append(time.perf_counter() - began)
    return Look(size_bytes(path), statistics.median(times), list(zip(names, outputs, strict=True)))


def sample_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs that a model takes: see :func:`sample`."""
    return sample(_session(path))


def sample(session: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs, always the same: one row, ``FREE_LENGTH`` where any length will do, numbers around 0, and of
    integers 0 and 1, which are a token, a mask and a type anywhere."""
    random = np.random.default_rng(0)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for node in session.get_inputs():
        kind = _TYPES.get(node.type)
        if kind is None:
            text = f"no inputs can be made up for {node.name}, a {node.type}; name a file of inputs"
            raise HeadraceError(Code.INVALID_REQUEST, text)
        shape = [_length(index, one) for index, one in enumerate(node.shape)]
        if np.issubdtype(kind, np.floating):
            made[node.name] = random.standard_normal(shape).astype(kind)
        else:
            made[node.name] = random.integers(0, 2, shape).astype(kind)
    return made


def differences(before: Look, after: Look) -> Sequence[Difference]:
    """Of every output of numbers."""
    return [
        _difference(name, np.asarray(old, np.float64), np.asarray(new, np.float64))
        for (name, old), (_, new) in zip(before.outputs, after.outputs, strict=True)
        if np.issubdtype(old.dtype, np.number)
    ]


def _difference(name: str, old: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> Difference:
    largest = float(np.abs(old - new).max(initial=0.0))
    scale = float(np.abs(old).max(initial=0.0))
    norms = float(np.linalg.norm(old) * np.linalg.norm(new))
    cosine = float(np.vdot(old, new)) / norms if norms else float(largest == 0.0)
    return Difference(name, largest, largest / scale if scale else largest, cosine)


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        first = " ".join(str(error).split())[:400]
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"cannot load {path.name}: {first}") from error


def _length(index: int, dimension: Any) -> int:
    if isinstance(dimension, int) and dimension >= 0:
        return dimension
    return FREE_LENGTH if index else 1
