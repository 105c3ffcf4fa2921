"""What the execution providers of a GPU are told; none is here, so only the telling is tested."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from headrace.domain.errors import HeadraceError
from headrace.engines.onnx_options import OnnxOptions, open_session, provider_options


class Machine:
    """ONNX Runtime on a machine with other providers: takes what a session is made of, computes nothing."""

    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, *there: str, usable: int | None = None) -> None:
        """``usable``: how many of them a session really gets."""
        self._there = [*there, "CPUExecutionProvider"]
        self._usable = usable
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get_available_providers(self) -> list[str]:
        return self._there

    def InferenceSession(self, path: str, options: Any, providers: Any) -> Any:
        self.asked = providers
        names = [name for name, _ in providers]
        got = names if self._usable is None else names[-self._usable :]
        return SimpleNamespace(disable_fallback=lambda: None, get_providers=lambda: got)


TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
GPU = ("tensorrt", "cuda", "cpu")


def test_a_session_on_a_gpu_has_its_providers_in_order_with_the_options_of_each() -> None:
    machine = Machine(CUDA, TENSORRT)
    options = OnnxOptions("m", GPU, cuda_graph=True, tensorrt_cache="/cache")
    open_session("m.onnx", options, machine)
    cache = {
        "trt_cuda_graph_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
        "trt_engine_cache_path": "/cache",
        "trt_timing_cache_path": "/cache",
    }
    assert machine.asked == [(TENSORRT, cache), (CUDA, {"enable_cuda_graph": "1"}), (CPU, {})]


def test_the_processor_computes_what_a_gpu_leaves_though_nobody_named_it() -> None:
    machine = Machine(CUDA)
    open_session("m.onnx", OnnxOptions("m", ("cuda",)), machine)
    assert machine.asked == [(CUDA, {}), (CPU, {})]


def test_a_provider_that_is_there_and_cannot_be_used_is_missing_too(caplog: Any) -> None:
    with pytest.raises(HeadraceError, match=f"{CUDA} is missing: its libraries, or the device"):
        open_session("m.onnx", OnnxOptions("m", ("cuda",)), Machine(CUDA, usable=1))
    falling_back = OnnxOptions("m", GPU, missing_provider="fallback")
    with caplog.at_level(logging.WARNING):
        open_session("m.onnx", falling_back, machine := Machine(CUDA))
    assert machine.asked == [(CUDA, {}), (CPU, {})]
    assert f"m: execution provider {TENSORRT} is missing" in caplog.text


def test_cuda_graphs_are_asked_for_in_the_provider_s_words() -> None:
    options = OnnxOptions("m", providers=("cuda",), cuda_graph=True)
    assert provider_options("cuda", options) == {"enable_cuda_graph": "1"}


def test_tensorrt_keeps_its_engines_and_may_compute_in_fp16() -> None:
    options = OnnxOptions("m", ("tensorrt",), tensorrt_cache="/cache", tensorrt_fp16=True)
    assert provider_options("tensorrt", options) == {
        "trt_fp16_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
        "trt_engine_cache_path": "/cache",
        "trt_timing_cache_path": "/cache",
    }


def test_further_options_come_last() -> None:
    more = {"cuda": {"device_id": 1, "enable_cuda_graph": 0}}
    options = OnnxOptions("m", ("cuda",), cuda_graph=True, provider_options=more)
    assert provider_options("cuda", options) == {"enable_cuda_graph": "0", "device_id": "1"}
    assert provider_options("cpu", options) == {}
