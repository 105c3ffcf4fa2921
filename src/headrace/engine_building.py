"""From a model's settings to its engines: one line an engine type."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.admission.estimates import Estimates, size_of
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request
from headrace.engines.connection import Write
from headrace.engines.engine import Engine
from headrace.engines.genai import GenaiEngine, GenaiOptions
from headrace.engines.lazy import LazyEngine
from headrace.engines.limits import Limits as EngineLimits
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_options import LlamaOptions, shape
from headrace.engines.measured import MeasuredEngine
from headrace.engines.memory import available, check_memory
from headrace.engines.openai import OpenAIEngine, OpenAIOptions
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions
from headrace.engines.still import POSSIBLE, LeadingLlama, Shifts, Still
from headrace.local_engine import Build, LocalEngine
from headrace.models.bar import Bar
from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Report, Wanted
from headrace.routing.model import Replica
from headrace.scheduling.adaptive import UpstreamLimit
from headrace.settings import Settings
from headrace.settings.environment import inherited
from headrace.settings.model import Model
from headrace.settings.model import Replica as Upstream

PATIENCE_S = 10.0 * 365 * 86_400
"""How long an upstream that does not answer is asked again: as long as the server runs."""

GENAI_CONTEXT = 4096
"""Tokens of prompt and answer, as llama.cpp's slots have them: who names no ``max_tokens`` takes memory for all."""


MakeLlama = Callable[[LlamaOptions, Mapping[str, str], int], LlamaEngine]
"""From options, environment and number of processors."""


class Built(NamedTuple):
    """A model's replicas. ``for_rows``: an engine that rows of jobs have to themselves; ``express``: one for those
    whose first token is due while others have the slots. Both are loaded when there are some."""

    replicas: Sequence[Replica[Engine]]
    for_rows: LazyEngine | None = None
    express: LazyEngine | None = None


class EngineBuilder:
    """Builds the replicas of a model."""

    def __init__(self, settings: Settings, write: Write) -> None:
        """``write``: with which engines send their requests."""
        self._settings = settings
        self._write = write

    def build(self, model: Model) -> Built:
        """Its replicas, and what is beside them."""
        if not (POSSIBLE and model.engine == "llama" and model.device != "gpu"):
            return Built(self.replicas(model))
        beside = Beside()
        replicas = [Replica(model.name, self._llama(model, beside.lead))]
        for_rows = LazyEngine(lambda: self._llama(model, beside.follow))
        express = LazyEngine(lambda: self._llama(model, beside.express))
        return Built(
            replicas,
            for_rows if model.jobs_apart else None,
            express if model.express else None,
        )

    def replicas(self, model: Model) -> Sequence[Replica[Engine]]:
        match model.engine:
            case "openai":
                return [self._upstream(model, upstream) for upstream in model.replicas]
            case "scripted":
                return [Replica(model.name, ScriptedEngine(script_options(model)))]
            case "llama":
                return [Replica(model.name, self._llama(model))]
            case "genai":
                return [Replica(model.name, self._genai(model))]
            case "onnx":
                return []  # it generates nothing: see tensor_building.py

    def _llama(self, model: Model, make: MakeLlama = LlamaEngine) -> Engine:
        def build(file: ModelFile) -> Engine:
            options = llama_options(model, file, self._settings.state_path)
            return make(options, inherited(), len(os.sched_getaffinity(0)))

        return self._local(model, build)

    def _genai(self, model: Model) -> Engine:
        if find_spec("onnxruntime_genai") is None:  # which only the engine's process imports
            text = "models of the engine genai need its package: pip install 'headrace[genai]'"
            raise HeadraceError(Code.INVALID_REQUEST, text, param="models.engine")

        def build(file: ModelFile) -> Engine:
            return GenaiEngine(genai_options(model, file, self._settings.state_path), inherited())

        return self._local(model, build)

    def _local(self, model: Model, build: Build) -> Engine:
        """What ``build`` makes of its file."""
        settings = self._settings
        if model.source is None:
            raise HeadraceError(
                Code.INVALID_REQUEST, f"Model {model.name} needs a source.", param="models.source"
            )
        wanted = Wanted(model.source, model.sha256, model.format)

        def fetch(report: Report) -> Awaitable[ModelFile]:
            return pull(settings.cache_path, wanted, report)

        return LocalEngine(model.name, fetch, build, Bar)

    def _upstream(self, model: Model, upstream: Upstream) -> Replica[Engine]:
        name = f"{model.name}@{upstream.url}"
        options = upstream_options(model, upstream)
        if (upstream.slots or model.slots) != "auto":
            return Replica(name, OpenAIEngine(options, self._write))
        engine = MeasuredEngine(options, prompt_tokens, self._write)
        replica: Replica[Engine] = Replica(name, engine, UpstreamLimit())
        engine.room = replica
        return replica


class Beside:
    """Engines of one model on the same processors: who of them stands still for whom."""

    def __init__(self) -> None:
        self._rows = Still()
        self._all = Shifts()
        self._leading: LlamaEngine | None = None

    def lead(self, options: LlamaOptions, environment: Mapping[str, str], cpus: int) -> LlamaEngine:
        """Of all who do not go elsewhere."""
        engine = self._leading = LeadingLlama(options, environment, cpus, [self._rows])
        self._all.engine = engine
        return engine

    def follow(
        self, options: LlamaOptions, environment: Mapping[str, str], cpus: int
    ) -> LlamaEngine:
        """Of rows of jobs. Raises ``ENGINE_UNAVAILABLE`` where memory is short."""
        self._check_memory(1.0)
        own = msgspec.structs.replace(_another(options, "jobs"), spare=True)
        engine = LlamaEngine(own, environment, cpus)
        self._rows.engine = engine
        return engine

    def express(
        self, options: LlamaOptions, environment: Mapping[str, str], cpus: int
    ) -> LlamaEngine:
        """Of those for whom all others stand still. Raises as :meth:`follow`."""
        all_slots = shape(options, cpus).slots
        slots = max(2, all_slots * 3 // 4)
        self._check_memory(slots / all_slots)
        own = msgspec.structs.replace(_another(options, "express"), slots=slots)
        engine = LeadingLlama(own, environment, cpus, [self._rows, self._all])
        leading = self._leading
        self._all.own = engine
        self._all.both = lambda: bool(engine.running and leading and leading.running)
        return engine

    def _check_memory(self, part: float) -> None:
        """For so many slots, in slots of the leading one: what is beside its slots is small."""
        if self._leading is not None:
            check_memory(self._leading.pid, available(), part)


def _another(options: LlamaOptions, name: str) -> LlamaOptions:
    log = options.log_path and options.log_path.with_suffix(f".{name}.log")
    return msgspec.structs.replace(options, embeds=0, log_path=log)


def prompt_tokens(request: Request) -> int:
    """About how long its prompt is."""
    return Estimates().prompt_tokens(size_of(request))


def upstream_options(model: Model, upstream: Upstream) -> OpenAIOptions:
    """The options of an OpenAI-compatible upstream."""
    slots = upstream.slots or model.slots
    return OpenAIOptions(
        name=model.name,
        url=upstream.url,
        model=upstream.name or "",
        api_key=upstream.api_key,
        dialect=upstream.dialect,
        slots=slots if isinstance(slots, int) else model.slot_count,
        asks_slots=not isinstance(slots, int),
        context=model.context or 0,
        load_timeout_s=PATIENCE_S,
        limits=EngineLimits(
            connect_s=model.connect_timeout_s,
            first_byte_s=model.first_byte_timeout_s,
            between_bytes_s=model.between_bytes_timeout_s,
        ),
    )


def script_options(model: Model) -> ScriptedOptions:
    """The options of a scripted engine from its file (TOML, or JSON by its name). Raises
    ``INVALID_REQUEST`` naming the file and what is wrong in it."""
    if model.script is None:
        return ScriptedOptions(name=model.name, slots=model.slot_count)
    path = Path(model.script).expanduser()
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        options = decode(path.read_bytes(), type=ScriptedOptions)
    except (OSError, msgspec.DecodeError) as error:
        message = f"models.script {path}: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, message, param="models.script") from error
    slots = options.slots if model.slots is None else model.slot_count
    return msgspec.structs.replace(options, name=model.name, slots=slots)


def llama_options(model: Model, file: ModelFile, state: Path) -> LlamaOptions:
    """The options of a llama.cpp engine; 0 leaves a choice to it."""
    return LlamaOptions(
        name=model.name,
        model_path=file.path,
        state=str(state),
        version=file.sha256[:12],
        device=model.device,
        slots=model.slot_count,
        context=model.context or 0,
        threads=model.threads or 0,
        batch_threads=model.batch_threads or 0,
        batch=model.batch or 0,
        ubatch=model.ubatch or 0,
        cache_mib=model.cache_mib or 0,
        partial_tokens=file.partial_tokens,
        embeds=model.embedding.max_tokens if model.embedding.enabled else 0,
        pooling=model.embedding.pooling or "",
        normalize=model.embedding.normalize,
        log_path=state / "engines" / f"{model.name}.log",
        limits=EngineLimits(
            connect_s=model.connect_timeout_s,
            first_byte_s=max(model.first_byte_timeout_s, 3600.0),
            between_bytes_s=model.between_bytes_timeout_s,
        ),
    )


def genai_options(model: Model, file: ModelFile, state: Path) -> GenaiOptions:
    """The options of an ONNX Runtime GenAI engine; 0 leaves a choice to it."""
    return GenaiOptions(
        name=model.name,
        folder=str(Path(file.path).parent),
        state=str(state),
        version=file.sha256[:12],
        device=model.device,
        slots=model.slot_count,
        context=model.context or GENAI_CONTEXT,
        threads=model.threads or 0,
        log_path=state / "engines" / f"{model.name}.log",
    )
