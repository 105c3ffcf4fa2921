"""ONNX models written anew by ONNX Runtime's own tools: optimised, or with weights of eight bits.

Imports ONNX Runtime and ``onnx`` (extra ``onnx-tools``): only in commands that rewrite a model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from headrace.domain.errors import Code, HeadraceError

Level = Literal["basic", "extended", "all"]
Row = dict[str, np.ndarray[Any, Any]]

_LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_SILENT = 4
_LONGEST_REASON = 400


def optimize(source: Path, target: Path, level: Level) -> None:
    """Write ``source`` as ONNX Runtime optimises it when it loads it. ``all`` is for this kind of processor only.
    Raises ``ENGINE_UNAVAILABLE`` with what is wrong with the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _SILENT

    def write(file: Path) -> None:
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    _written(target, write)


def quantize_dynamic(source: Path, target: Path, *, per_channel: bool = False) -> None:
    """Weights of eight bits; activations are measured anew in every run. Raises as :func:`optimize`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def write(file: Path) -> None:
        quantize_dynamic(source, file, per_channel=per_channel, weight_type=QuantType.QInt8)

    _written(target, write)


def quantize_static(
    source: Path, target: Path, rows: Sequence[Row], *, per_channel: bool = False
) -> None:
    """Weights and activations of eight bits, with the ranges that activations have for these inputs. Raises as
    :func:`optimize`."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    def write(file: Path) -> None:
        quantize_static(
            source,
            file,
            _Rows(rows),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    _written(target, write)


class _Rows:
    """Inputs of one run after the other, as the calibration asks for them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> Row | None:
        return next(self._rows, None)


def _written(target: Path, write: Callable[[Path], None]) -> None:
    """Whole or not at all. Files of weights that are written beside it, above 2 GB, keep their names."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".headrace-") as folder:
        file = Path(folder) / target.name
        try:
            write(file)
        except Exception as error:
            first = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            text = f"ONNX Runtime cannot rewrite it: {first}"
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, text) from error
        for beside in Path(folder).iterdir():
            if beside != file:
                beside.replace(target.parent / beside.name)
        file.replace(target)
