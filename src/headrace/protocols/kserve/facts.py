"""What is said of the server, its models and what they did: the same over HTTP, as JSON, and gRPC.

Fields as https://github.com/triton-inference-server/server/tree/main/docs/protocol has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.domain.errors import HeadraceError
from headrace.domain.tensors import TensorCounts, TensorModel, TensorSpec
from headrace.protocols.memory_port import Region
from headrace.protocols.tensor_port import Tensors

NAME = "headrace"
EXTENSIONS = (
    *("binary_tensor_data", "classification", "model_configuration", "model_repository"),
    *("parameters", "statistics", "system_shared_memory"),
)
_STATES = {"ready": "READY", "loading": "LOADING", "unloaded": "UNAVAILABLE"}
_FAILED = "UNAVAILABLE"

Fact = dict[str, Any]


def server(version: str) -> Fact:
    return {"name": NAME, "version": version, "extensions": list(EXTENSIONS)}


def is_ready(tensors: Tensors) -> bool:
    """Whether some model can serve, if need be after it is loaded."""
    return any(model.state in ("ready", "unloaded") for model in tensors.models())


def model_ready(tensors: Tensors, name: str, version: str) -> bool:
    """Whether it is in memory. One that is not there is not ready."""
    try:
        return tensors.model(name, version).state == "ready"
    except HeadraceError:
        return False


def metadata(model: TensorModel) -> Fact:
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": model.platform,
        "inputs": [_spec(spec) for spec in model.inputs],
        "outputs": [_spec(spec) for spec in model.outputs],
    }


def config(model: TensorModel) -> Fact:
    batched = model.max_batch_size > 0
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": model.platform.partition("_")[0],
        "version_policy": {"specific": {"versions": _numbers(model.versions)}},
        "max_batch_size": model.max_batch_size,
        "input": [_config_spec(spec, batched) for spec in model.inputs],
        "output": [_config_spec(spec, batched) for spec in model.outputs],
    }


def statistics(model: TensorModel, counts: TensorCounts) -> Fact:
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": int(counts.last_at * 1000),
        "inference_count": counts.rows,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": _duration(counts.requests, counts.queue_s + counts.run_s),
            "fail": _duration(counts.failed, counts.failed_s),
            "queue": _duration(counts.requests, counts.queue_s),
            "compute_input": _duration(0, 0.0),
            "compute_infer": _duration(counts.requests, counts.run_s),
            "compute_output": _duration(0, 0.0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(0, 0.0),
                "compute_infer": _duration(int(runs), seconds),
                "compute_output": _duration(0, 0.0),
            }
            for rows, (runs, seconds) in sorted(counts.runs_by_rows.items())
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": model.size_bytes}],
    }


def index(models: Sequence[TensorModel], ready_only: bool) -> list[Fact]:
    return [
        {
            "name": model.name,
            "version": model.version,
            "state": _STATES.get(model.state, _FAILED),
            "reason": model.reason,
        }
        for model in models
        if model.state == "ready" or not ready_only
    ]


def _spec(spec: TensorSpec) -> Fact:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _config_spec(spec: TensorSpec, batched: bool) -> Fact:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    shape = spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(shape)}


def _numbers(versions: Sequence[str]) -> list[int]:
    """Triton's versions are numbers; others it could not say."""
    return [int(version) for version in versions if version.isdigit()]


def _duration(count: int, seconds: float) -> Fact:
    return {"count": count, "ns": round(seconds * 1e9)}


def all_statistics(tensors: Tensors, name: str = "", version: str = "") -> list[Fact]:
    """Of a version, of all versions of a model, or of all models. Raises ``MODEL_NOT_FOUND``."""
    if name:
        known = tensors.model(name, version)
        versions = (version,) if version else known.versions
        models: Sequence[TensorModel] = [tensors.model(name, each) for each in versions]
    else:
        models = tensors.models()
    return [statistics(model, tensors.counts(model.name, model.version)) for model in models]


def region(region: Region) -> Fact:
    return {
        "name": region.name,
        "key": region.key,
        "offset": region.offset,
        "byte_size": region.byte_size,
    }
