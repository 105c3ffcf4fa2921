"""From settings to the models that take tensors.

Imports ONNX Runtime and numpy: only where such a model is configured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.copying import Copier
from headrace.engines.quiet_collector import QuietCollector
from headrace.engines.tensor_engine import TensorEngine
from headrace.engines.tensor_runs import Quiet
from headrace.models.bar import Bar
from headrace.models.onnx_weights import size_bytes
from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Wanted
from headrace.scheduling.batcher import BatchQueue
from headrace.settings import Settings
from headrace.settings.model import Model
from headrace.standings import Stand
from headrace.tensor_loading import News
from headrace.tensor_version import Plan, TensorVersion
from headrace.tensors import Served, TakeRequest, TensorService

try:
    from headrace.engines.onnx import OnnxEngine
    from headrace.engines.onnx_options import OnnxOptions
except ImportError as error:
    raise HeadraceError(
        Code.INVALID_REQUEST,
        f"models of the engine onnx need its packages ({error.name}): pip install 'headrace[onnx]'",
        param="models.engine",
    ) from error

Open = Callable[[OnnxOptions, ModelFile], TensorEngine]
"""Loads a file; blocks."""


def build(
    settings: Settings,
    queue: BatchQueue,
    news: News,
    stand: Stand,
    take_request: TakeRequest,
    busy: Callable[[], bool],
) -> TensorService:
    """The service of all models whose engine is ``onnx``. ``queue``: what may wait for each. ``busy``: whether the
    server has anything else to do."""
    mib = settings.server.tensor_memory_mib
    copier = Copier()
    open = partial(_open, QuietCollector(), copier)

    def quiet() -> bool:
        return service.under_way <= 1 and not busy()

    models = (model for model in settings.models if model.engine == "onnx")
    service = TensorService(
        [_served(settings, model, queue, open, quiet) for model in models],
        budget_bytes=None if mib is None else mib * 2**20,
        news=news,
        stand=stand,
        take_request=take_request,
        closed=copier.close,
    )
    return service


def _served(
    settings: Settings, model: Model, queue: BatchQueue, open: Open, quiet: Quiet
) -> Served:
    files = [(one.version, Wanted(one.source, one.sha256)) for one in model.versions]
    if model.source is not None:
        files = [("1", Wanted(model.source, model.sha256))]
    versions = tuple(
        TensorVersion(_plan(settings, model, queue, open, quiet, *file)) for file in files
    )
    created, load = int(time.time()), model.onnx.load
    return Served(model.name, model.aliases, created, load, versions, model.fallback)


def _plan(
    settings: Settings,
    model: Model,
    queue: BatchQueue,
    open: Open,
    quiet: Quiet,
    version: str,
    wanted: Wanted,
) -> Plan:
    batching = model.batching
    name = f"{model.name}:{version}"
    return Plan(
        model=model.name,
        version=version,
        fetch=partial(_fetch, settings.cache_path, name, wanted),
        open=partial(open, onnx_options(name, model)),
        max_batch_size=batching.max_batch_size,
        max_wait_ms=batching.max_wait_ms,
        preferred=batching.preferred_batch_sizes,
        instances=batching.instances,
        queue=queue,
        quiet=quiet,
        forbid_nan=model.onnx.forbid_nan,
        idle_s=model.onnx.unload_idle_s,
        labels={name: _labels(name, path) for name, path in model.onnx.labels.items()},
    )


def _labels(output: str, path: str) -> tuple[str, ...]:
    """Raises ``INVALID_REQUEST`` naming the file and what is wrong with it."""
    try:
        return tuple(Path(path).expanduser().read_text("utf-8").removesuffix("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        text = f"models.onnx.labels.{output} {path}: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, text, param="models.onnx.labels") from error


async def _fetch(cache: Path, name: str, wanted: Wanted) -> ModelFile:
    with Bar(name) as show:
        file = await pull(cache, wanted, show)
    try:
        size = await asyncio.to_thread(size_bytes, Path(file.path))
    except OSError as error:
        text = f"cannot read {file.path}: {error.strerror}"
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, text) from error
    return msgspec.structs.replace(file, size_bytes=size)


def _open(
    collector: QuietCollector, copier: Copier, options: OnnxOptions, file: ModelFile
) -> TensorEngine:
    return OnnxEngine(file.path, options, collector, copier)


def onnx_options(name: str, model: Model) -> OnnxOptions:
    """How ONNX Runtime is asked for a model."""
    onnx = model.onnx
    return OnnxOptions(
        name=name,
        providers=onnx.providers,
        missing_provider=onnx.missing_provider,
        graph_optimization=onnx.graph_optimization,
        intra_threads=onnx.intra_threads or 0,
        inter_threads=onnx.inter_threads or 0,
        cuda_graph=onnx.cuda_graph,
        tensorrt_cache=onnx.tensorrt_cache or "",
        tensorrt_fp16=onnx.tensorrt_fp16,
        share_weights=onnx.share_weights,
        provider_options=onnx.provider_options,
    )
