"""Runs as CUDA graphs: captured once for each shape of inputs, then replayed.

A graph reads and writes where it did when it was captured. So each shape has memory of its own on the device,
into which inputs are copied before a run. https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from headrace.engines.quiet_collector import QuietCollector
from headrace.engines.tensor_engine import Arrays
from headrace.engines.tensor_memory import Array

MAX_GRAPHS = 32
"""Of one version. Further shapes run without: each graph keeps its memory on the device."""

Plain = Callable[[Arrays, Sequence[str], Any], Sequence[Array]]
"""A run without a graph, with these options."""


def without_graph() -> Any:
    """Options of a run that is neither captured nor replayed."""
    return _options(-1)


class CapturedRuns:
    """``device``: as ONNX Runtime names it. Runs of one shape come one after the other."""

    def __init__(
        self, session: Any, plain: Plain, quiet: QuietCollector, device: str = "cuda"
    ) -> None:
        self._session = session
        self._plain = plain
        self._quiet = quiet
        self._device = device
        self._graphs: dict[Hashable, _Graph] = {}  # bounded by MAX_GRAPHS
        self._capturing = threading.Lock()

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> Sequence[Array]:
        """The named outputs."""
        key = (tuple((name, array.shape) for name, array in inputs.items()), tuple(outputs))
        graph = self._graphs.get(key)
        if graph is not None:
            return graph.run(inputs)
        with self._capturing:
            if key not in self._graphs and len(self._graphs) < MAX_GRAPHS:
                return self._capture(key, inputs, outputs)
        return self._plain(inputs, outputs, without_graph())

    def _capture(self, key: Hashable, inputs: Arrays, outputs: Sequence[str]) -> Sequence[Array]:
        """The outputs too; only a run tells what shapes they have."""
        made = self._plain(inputs, outputs, without_graph())
        shapes = dict(zip(outputs, made, strict=True))
        graph = _Graph(self._session, len(self._graphs) + 1, self._device, inputs, shapes)
        with self._quiet.quiet():
            graph.replay()
        self._graphs[key] = graph
        return made


class _Graph:
    """``number``: which one it is of its session's."""

    def __init__(
        self, session: Any, number: int, device: str, inputs: Arrays, outputs: Mapping[str, Array]
    ) -> None:
        value = onnxruntime.OrtValue
        self._session = session
        self._options = _options(number)
        self._alone = threading.Lock()
        self._binding = session.io_binding()
        self._inputs = {
            name: value.ortvalue_from_numpy(np.array(array), device, 0)
            for name, array in inputs.items()
        }
        self._outputs = [
            value.ortvalue_from_shape_and_type(array.shape, array.dtype.type, device, 0)
            for array in outputs.values()
        ]
        for name, place in self._inputs.items():
            self._binding.bind_ortvalue_input(name, place)
        for name, place in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, place)

    def run(self, inputs: Arrays) -> Sequence[Array]:
        with self._alone:
            for name, place in self._inputs.items():
                place.update_inplace(np.ascontiguousarray(inputs[name]))
            self.replay()
            return [np.array(place.numpy()) for place in self._outputs]  # the next run writes there

    def replay(self) -> None:
        """The first time it is captured."""
        self._session.run_with_iobinding(self._binding, self._options)


def _options(number: int) -> Any:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
