"""What the execution providers of a GPU are told; none is here, so only the telling is tested."""

from __future__ import annotations

from headrace.engines.onnx_options import OnnxOptions, provider_options


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
