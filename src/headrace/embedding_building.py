"""From settings to what makes vectors of texts, for every model that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.embedders import Dimensions, LlamaTexts, UpstreamTexts
from headrace.embedding import EmbeddingModel, EmbeddingService, Texts
from headrace.flow import Flow
from headrace.limiting import Limiting
from headrace.models.bar import Bar
from headrace.models.pull import pull
from headrace.models.wanted import Wanted
from headrace.protocols.port import ModelCard
from headrace.scheduling.batcher import BatchOptions, BatchQueue
from headrace.settings import Settings
from headrace.settings.model import Model
from headrace.standings import Stand
from headrace.telemetry.metrics import Metrics

INSTANCES = 2
"""Batches that the embedded llama.cpp has at once: one is computed, the next is there."""


def build(
    settings: Settings,
    flows: Mapping[str, Flow],
    queue: BatchQueue,
    tensors: Any,
    find: Callable[[str], ModelCard],
    stand: Stand,
    limiting: Limiting,
    metrics: Metrics,
) -> EmbeddingService:
    """``flows``: of models that generate, by name; ``queue``: what may wait for each; ``tensors``: of those that take
    tensors, None without any."""
    models = {}
    for model in settings.models:
        texts = _texts(settings, model, flows, queue, tensors)
        if texts is not None:
            meter = metrics.model(model.name).of("embeddings")
            models[model.name] = EmbeddingModel(texts, meter, model.fallback)
    return EmbeddingService(models, find, stand, limiting)


def _texts(
    settings: Settings,
    model: Model,
    flows: Mapping[str, Flow],
    queue: BatchQueue,
    tensors: Any,
) -> Texts | None:
    """None for a model that gives no embeddings."""
    if model.engine in ("openai", "genai", "scripted"):
        return UpstreamTexts(flows[model.name].model)
    if not model.embedding.enabled:
        return None
    if model.engine == "llama":
        most = model.embedding.max_tokens
        # As many inputs as llama.cpp has slots: it computes them at once.
        options = BatchOptions(model.slot_count, instances=INSTANCES, queue=queue)
        return LlamaTexts(flows[model.name].model, options, most, dimensions(model))
    return _onnx_texts(settings, model, tensors)


def _onnx_texts(settings: Settings, model: Model, tensors: Any) -> Texts:
    from headrace.engines.text_encoder import TextTokenizer  # these import numpy
    from headrace.onnx_texts import OnnxOptions, OnnxTexts

    embedding = model.embedding
    assert embedding.tokenizer is not None  # as the settings were checked
    wanted = Wanted(embedding.tokenizer, embedding.tokenizer_sha256)

    async def fetch() -> TextTokenizer:
        with Bar(f"{model.name} tokenizer") as show:
            file = await pull(settings.cache_path, wanted, show)
        return TextTokenizer(Path(file.path))

    options = OnnxOptions(
        name=model.name,
        most=embedding.max_tokens,
        padding=embedding.padding,
        pooling=embedding.pooling or "mean",
        normalize=embedding.normalize,
        output=embedding.output,
        dimensions=dimensions(model),
    )
    return OnnxTexts(tensors, options, fetch)


def dimensions(model: Model) -> Dimensions:
    return Dimensions(model.embedding.dimensions, model.embedding.truncate)
