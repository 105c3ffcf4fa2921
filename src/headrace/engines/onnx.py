"""ONNX Runtime: a version of a model as a session in this process (extra ``onnx``).

No tensor is copied that need not be: inputs are read where they lie, outputs come as views of ONNX Runtime's memory,
and go straight into memory that is given where their shape is known before they are computed. Importing it takes
ONNX Runtime and numpy: only where such a model is configured.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnxruntime

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.copying import Copier
from headrace.engines.onnx_graphs import CapturedRuns
from headrace.engines.onnx_loops import is_steady
from headrace.engines.onnx_nodes import read_graph
from headrace.engines.onnx_options import NAMES, OnnxOptions, open_session
from headrace.engines.onnx_types import BFLOAT16, decoded, encoded, spec
from headrace.engines.onnx_unchanged import IDENTITY, unchanged
from headrace.engines.quiet_collector import QuietCollector
from headrace.engines.tensor_engine import Arrays, BatchDimension
from headrace.engines.tensor_memory import Array, Copy, moved, same_memory, view

_REASON = re.compile(r"\[ONNXRuntimeError\] : \d+ : (\w+) : ")
_BATCH_NAME = re.compile(r"N|.*[Bb]atch.*")
_LONGEST_REASON = 400


class OnnxEngine:
    """``path``: of an ``.onnx`` or ``.ort`` file; files that it names for its weights are beside it."""

    platform = "onnxruntime_onnx"

    def __init__(
        self, path: str, options: OnnxOptions, quiet: QuietCollector, copier: Copier
    ) -> None:
        """Loads; blocks. ``quiet``: for captures of CUDA graphs. ``copier``: used where a run may have more than one
        thread. Raises ``ENGINE_UNAVAILABLE`` with what is wrong."""
        try:
            self._session: Any = open_session(path, options)
        except HeadraceError:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            text = f"ONNX Runtime cannot load it: {in_words(error)}"
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, text) from None
        self.inputs = tuple(spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(spec(node) for node in self._session.get_outputs())
        self._shapes = {
            node.name: tuple(node.shape)
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        self._specs = {one.name: one for one in (*self.inputs, *self.outputs)}
        self._texts = [one.name for one in self.inputs if one.datatype == "BYTES"]
        graph = read_graph(path)
        names = [one.name for one in self.inputs]
        self.steady = not self._texts and is_steady(graph, names)
        made = [one.name for one in self.outputs]
        self._unchanged = unchanged(graph, names, made)
        self._passed_on = {} if self._texts else unchanged(graph, names, made, IDENTITY)
        self._copy: Copy = np.copyto if options.intra_threads == 1 else copier.copy
        self._captured: CapturedRuns | None = None
        if options.cuda_graph and self._captures():
            self._captured = CapturedRuns(self._session, self._run_plainly, quiet)

    @property
    def batch_dimension(self) -> BatchDimension:
        """As :class:`~headrace.engines.tensor_engine.TensorEngine` says."""
        firsts = [shape[0] if shape else 1 for shape in self._shapes.values()]
        if any(isinstance(first, int) for first in firsts):
            return "none"
        named = [isinstance(first, str) and _BATCH_NAME.fullmatch(first) for first in firsts]
        return "named" if all(named) and len(set(firsts)) == 1 else "free"

    def run(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        """As :class:`~headrace.engines.tensor_engine.TensorEngine` says."""
        made = self._given_back(inputs, outputs, into)
        computed = [name for name in outputs if name not in made]
        if computed:
            made |= self._computed(inputs, computed, into)
        return made

    def close(self) -> None:
        """As :class:`~headrace.engines.tensor_engine.TensorEngine` says."""
        self._session = self._captured = None

    def _given_back(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> dict[str, Array]:
        """Those that are an input as it came, for which nothing is run: in the memory that was given for them. (Without
        such they are computed: the input itself may be a client's pages, into which another output is put later.) None
        where memory for another output is an input's."""
        names = [name for name in outputs if name in self._passed_on and name in into]
        there = self._there_already(inputs, into) if names else None
        if there is None:
            return {}
        made: dict[str, Array] = {}
        for name in names:
            array = inputs[self._passed_on[name]]
            if name not in there:
                array = moved(array, self._specs[name], into[name], self._copy)
            made[name] = array
        return made

    def _there_already(self, inputs: Arrays, into: Arrays) -> Collection[str] | None:
        """Outputs whose memory is that of the input which they are; None if an input has memory of any other's."""
        found = []
        for name, memory in into.items():
            if any(np.may_share_memory(memory, array) for array in inputs.values()):
                source = inputs.get(self._passed_on.get(name, ""))
                if source is None or not same_memory(memory[: source.nbytes], source):
                    return None
                found.append(name)
        return found

    def _computed(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        places = self._places(inputs, outputs, into)
        try:
            found = self._run(inputs, outputs, places)
        except HeadraceError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise failed(error) from None
        return {
            name: self._placed(name, array, places, into)
            for name, array in zip(outputs, found, strict=True)
        }

    def _run(
        self, inputs: Arrays, outputs: Sequence[str], places: dict[str, Array]
    ) -> Sequence[Array]:
        if self._texts:
            return self._run_texts(inputs, outputs)
        if self._captured is not None:
            return self._captured.run(inputs, outputs)
        try:
            return self._run_bound(inputs, outputs, places)
        except RuntimeError:
            # This call does not tell bad inputs from a broken model, and a model whose dimensions are not as long as it
            # says cannot write where it should. The other call, which takes longer, does.
            places.clear()
            return self._run_values(inputs, outputs)

    def _run_values(self, inputs: Arrays, outputs: Sequence[str]) -> Sequence[Array]:
        values = {name: self._value(name, array) for name, array in inputs.items()}
        return [_array(one) for one in self._session.run_with_ort_values(list(outputs), values)]

    def _run_plainly(self, inputs: Arrays, outputs: Sequence[str], options: Any) -> Sequence[Array]:
        return self._run_bound(inputs, outputs, {}, options)

    def _run_bound(
        self, inputs: Arrays, outputs: Sequence[str], places: Arrays, options: Any = None
    ) -> Sequence[Array]:
        session = self._session
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._value(name, array))
        for name in outputs:
            place = places.get(name)
            if place is None:
                binding.bind_output(name)
            else:
                binding.bind_ortvalue_output(name, self._value(name, place))
        session.run_with_iobinding(binding, options)
        if len(places) == len(outputs):
            return [places[name] for name in outputs]
        return [_array(value) for value in binding.get_outputs()]

    def _run_texts(self, inputs: Arrays, outputs: Sequence[str]) -> Sequence[Array]:
        """Only arrays carry texts to ONNX Runtime, and only this call of its takes arrays."""
        feed = {
            name: decoded(name, array) if name in self._texts else self._value(name, array)
            for name, array in inputs.items()
        }
        found = self._session.run(list(outputs), feed)
        return [encoded(array) if array.dtype == object else array for array in found]

    def _value(self, name: str, array: Array) -> Any:
        if self._specs[name].datatype == "BF16":
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def _places(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> dict[str, Array]:
        """Views of the given memory, for outputs whose shape is known before they are computed, and that destroy
        nothing there. The others come in memory of ONNX Runtime's, and are copied when all is computed."""
        places: dict[str, Array] = {}
        if not into or self._texts or self._captured is not None:
            return places
        lengths = self._lengths(inputs)
        for name in outputs:
            if name in into:
                shape = [lengths.get(one, one) for one in self._shapes[name]]
                if all(isinstance(one, int) for one in shape):
                    place = view(into[name], self._specs[name], shape)
                    if self._may_be_written(name, place, inputs):
                        places[name] = place
        return places

    def _may_be_written(self, name: str, place: Array, inputs: Arrays) -> bool:
        """Whether no input becomes another one while it is read: none is there, or the one that the output is."""
        source = self._unchanged.get(name)
        if source is not None and same_memory(place, inputs[source]):
            return True
        return not any(np.may_share_memory(place, array) for array in inputs.values())

    def _captures(self) -> bool:
        """Whether a GPU computes it, and numpy knows all its types."""
        on_gpu = {NAMES["cuda"], NAMES["tensorrt"]} & set(self._session.get_providers())
        strange = {"BF16", "BYTES"} & {one.datatype for one in self._specs.values()}
        return bool(on_gpu) and not strange

    def _placed(self, name: str, array: Array, places: Arrays, into: Arrays) -> Array:
        """An output where it shall be."""
        if name in places:
            place: Array = places[name]
            return place
        if name not in into:
            return array
        return moved(array, self._specs[name], into[name], self._copy)

    def _lengths(self, inputs: Arrays) -> dict[Any, int]:
        """How long the dimensions are in these inputs, by their names."""
        return {
            name: length
            for input, array in inputs.items()
            for name, length in zip(self._shapes[input], array.shape, strict=True)
            if isinstance(name, str)
        }


def _array(value: Any) -> Array:
    """A view of an ``onnxruntime.OrtValue``, which lives as long as the view does."""
    if value.element_type() != BFLOAT16:
        array: Array = value.numpy()
        return encoded(array) if array.dtype == object else array
    memory = (ctypes.c_uint8 * value.tensor_size_in_bytes()).from_address(value.data_ptr())
    memory.owner = value
    return np.frombuffer(memory, np.uint16).reshape(value.shape())


def failed(error: Exception) -> HeadraceError:
    """What a run's error is to who asked."""
    said = in_words(error)
    if "INVALID_ARGUMENT" in _REASON.findall(str(error)):
        return HeadraceError(
            Code.INVALID_REQUEST, f"The model cannot take these inputs: {said}", param="inputs"
        )
    return HeadraceError(Code.ENGINE_FAILED, f"The model failed at these inputs: {said}")


def in_words(error: Exception) -> str:
    """What ONNX Runtime says, without where in its sources it says so."""
    text = _REASON.split(str(error))[-1].rpartition("Status Message: ")[2]
    return " ".join(text.split())[:_LONGEST_REASON] or type(error).__name__
