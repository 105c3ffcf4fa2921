"""How ONNX Runtime is asked for a session: providers, their options, threads, optimisation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnxruntime

from headrace.domain.errors import Code, HeadraceError

logger = logging.getLogger("headrace.engines.onnx")

Provider = Literal["cpu", "cuda", "tensorrt"]
Optimization = Literal["none", "basic", "extended", "all"]

NAMES: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_SILENT = 4
"""It raises what it logs; its own lines would be in nobody's format."""


class OnnxOptions(msgspec.Struct, frozen=True):
    """``providers``: the first one that can, computes a part of the model; the CPU does what is left.
    ``share_weights``: those in a file beside the model stay mapped, and are not rearranged in memory of our own.
    ``intra_threads``: of one operator, ``inter_threads``: of operators beside each other; 0 is ONNX Runtime's own
    choice. ``tensorrt_cache``: folder of built engines, empty for none. ``provider_options``: further ones, by
    provider, as ONNX Runtime names them."""

    name: str
    providers: Sequence[Provider] = ("cpu",)
    missing_provider: Literal["fail", "fallback"] = "fail"
    graph_optimization: Optimization = "all"
    intra_threads: int = 0
    inter_threads: int = 0
    cuda_graph: bool = False
    tensorrt_cache: str = ""
    tensorrt_fp16: bool = False
    share_weights: bool = False
    provider_options: Mapping[str, Mapping[str, Any]] = {}


def open_session(path: str, options: OnnxOptions, runtime: Any = onnxruntime) -> Any:
    """An ``onnxruntime.InferenceSession`` of the model file. Blocks. ``runtime``: the package, or what stands for one
    with other providers. Raises ``ENGINE_UNAVAILABLE`` for a provider that is not there, unless it may be done
    without; and whatever ONNX Runtime does."""
    wanted = [NAMES[provider] for provider in options.providers]
    there = runtime.get_available_providers()
    usable = [name for name in wanted if name in there]
    _look(options, wanted, usable, f"this onnxruntime has {', '.join(there)}")
    chosen = [
        (NAMES[provider], provider_options(provider, options))
        for provider in options.providers
        if NAMES[provider] in usable
    ]
    if NAMES["cpu"] not in usable:
        chosen.append((NAMES["cpu"], {}))
    session = runtime.InferenceSession(path, _session_options(options), providers=chosen)
    session.disable_fallback()
    _look(options, usable, session.get_providers(), "its libraries, or the device, cannot be used")
    return session


def _look(options: OnnxOptions, wanted: Sequence[str], got: Sequence[str], why: str) -> None:
    missing = [name for name in wanted if name not in got]
    if not missing:
        return
    what = f"execution provider {' and '.join(missing)} is missing: {why}"
    if options.missing_provider == "fail":
        hint = 'install the onnxruntime that has it, or set missing_provider = "fallback"'
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"{what}; {hint}")
    logger.warning("%s: %s; it runs without", options.name, what)


def _session_options(options: OnnxOptions) -> Any:
    made = onnxruntime.SessionOptions()
    made.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, _LEVELS[options.graph_optimization]
    )
    made.intra_op_num_threads = options.intra_threads
    made.inter_op_num_threads = options.inter_threads
    if options.inter_threads > 1:
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    made.log_severity_level = _SILENT
    if options.share_weights:
        made.add_session_config_entry("session.disable_prepacking", "1")
    return made


def provider_options(provider: str, options: OnnxOptions) -> dict[str, str]:
    """As ONNX Runtime takes them: texts. https://onnxruntime.ai/docs/execution-providers/"""
    made: dict[str, Any] = {}
    if provider == "cuda" and options.cuda_graph:
        made["enable_cuda_graph"] = 1
    if provider == "tensorrt":
        made |= _tensorrt_options(options)
    made |= options.provider_options.get(provider, {})
    return {key: str(value) for key, value in made.items()}


def _tensorrt_options(options: OnnxOptions) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if options.cuda_graph:
        made["trt_cuda_graph_enable"] = True
    if options.tensorrt_fp16:
        made["trt_fp16_enable"] = True
    if options.tensorrt_cache:
        folder = str(Path(options.tensorrt_cache).expanduser())
        made["trt_engine_cache_enable"] = made["trt_timing_cache_enable"] = True
        made["trt_engine_cache_path"] = made["trt_timing_cache_path"] = folder
    return made
