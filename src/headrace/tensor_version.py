"""One version of a model that takes tensors: what is known of it; its engine and batches while it is loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from headrace.admission.tensor_checking import Taken, check
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.standing import Standing
from headrace.domain.tensors import (
    Tensor,
    TensorCounts,
    TensorModel,
    TensorRequest,
    TensorResponse,
)
from headrace.engines.joined_tensors import JoinedTensors, Outputs, PendingTensors
from headrace.engines.tensor_engine import TensorEngine
from headrace.engines.tensor_runs import Pending, Quiet, TensorRuns
from headrace.models.wanted import ModelFile
from headrace.scheduling.batcher import BatchOptions, BatchQueue
from headrace.scheduling.batching import Batching

A = TypeVar("A")

USUAL_BATCH = 32
"""Rows of a run, where the model names its batch and the settings say nothing."""
HELD = "it was unloaded by hand; load it first"
RETRY_S = 30.0
"""What could not be loaded is tried again after so long, when somebody asks for it."""


class Plan(msgspec.Struct, frozen=True):
    """How a version is served. ``fetch``: brings its file; ``open``: loads it, on a thread. Both raise
    ``ENGINE_UNAVAILABLE``. ``max_batch_size``: None for what the model's own names say. ``idle_s``: it is unloaded
    when nobody asked for so long. ``quiet``: whether nobody else is served. ``labels``: by output, the names of its
    classes."""

    model: str
    version: str
    fetch: Callable[[], Awaitable[ModelFile]]
    open: Callable[[ModelFile], TensorEngine]
    max_batch_size: int | None = None
    max_wait_ms: float = 5.0
    preferred: tuple[int, ...] = ()
    instances: int = 1
    queue: BatchQueue = msgspec.field(default_factory=BatchQueue)
    quiet: Quiet = bool  # never
    forbid_nan: bool = False
    idle_s: float | None = None
    labels: Mapping[str, Sequence[str]] = {}

    @property
    def name(self) -> str:
        return f"{self.model}:{self.version}"


class Loaded:
    """A version while it is in memory."""

    def __init__(self, plan: Plan, engine: TensorEngine, counts: TensorCounts) -> None:
        """Raises ``ENGINE_UNAVAILABLE`` for a batch that the model has not, or labels of another output."""
        most = _max_batch_size(plan, engine)
        _check_labels(plan, engine)
        self.platform = engine.platform
        self.taken = Taken(engine.inputs, engine.outputs, most, plan.forbid_nan)
        self._counts = counts
        self._names = tuple(spec.name for spec in engine.outputs)
        self._types = {spec.name: spec.datatype for spec in engine.outputs}
        self._runs = TensorRuns(engine, plan.instances, plan.name, self._ran, plan.quiet)
        options = BatchOptions(
            max(most, 1), plan.max_wait_ms, plan.preferred, plan.instances, plan.queue
        )
        self._batching: Batching[Pending, Any] = Batching(
            self._runs.run, options, self._runs.run_at_once
        )
        self._joining = JoinedTensors(engine.inputs, engine.outputs)

    @property
    def full(self) -> bool:
        """Whether who comes now would find no room."""
        return self._batching.full

    async def infer(
        self, request: TensorRequest, standing: Standing, came_at: float
    ) -> tuple[Pending, Sequence[Tensor]]:
        """Its outputs, and what it was in the run. Raises as ``protocols.tensor_port.Tensors.infer``."""
        rows = check(request, self.taken)
        inputs = {tensor.name: tensor.array for tensor in request.inputs}
        wanted = tuple(request.outputs) or self._names
        pending = PendingTensors(
            joining=self._joining,
            rows=rows,
            came_at=came_at,
            inputs=inputs,
            outputs=wanted,
            into=request.into,
        )
        made: Outputs
        _, made = await self.run(pending, self._key(request), standing)
        outputs = [Tensor(name, self._types[name], made[name].shape, made[name]) for name in wanted]
        return pending, outputs

    async def run(self, pending: Pending, key: Hashable, standing: Standing) -> tuple[Pending, Any]:
        """The answer to what is known to be right, in a run with others of this key. Raises likewise."""
        answer = await self._batching.submit(
            pending,
            key=key,
            rows=pending.rows,
            standing=standing,
            length=pending.length,
            padding=pending.padding,
            own_padding=pending.own_padding,
        )
        return pending, answer

    async def close(self) -> None:
        """Let what runs end, refuse what waits, free the memory."""
        await self._batching.close()
        await self._runs.close()

    def _key(self, request: TensorRequest) -> Hashable:
        """What may run together: rows of the same shape."""
        if not self.taken.max_batch_size:
            return None
        return tuple(sorted((one.name, one.array.shape[1:]) for one in request.inputs))

    def _ran(self, rows: int, took_s: float) -> None:
        counts = self._counts
        counts.runs += 1
        counts.run_s += took_s
        of_size = counts.runs_by_rows.setdefault(rows, [0, 0.0])  # bounded by the largest batch
        of_size[0] += 1
        of_size[1] += took_s


class TensorVersion:
    """``state`` and ``reason`` as :class:`~headrace.domain.tensors.TensorModel` has them. ``held``: it was unloaded
    by hand, and is loaded by hand again."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.counts = TensorCounts()
        self.state: Literal["unloaded", "loading", "ready", "failed"] = "unloaded"
        self.reason = "it was not asked for yet"
        self.held = False
        self.loaded: Loaded | None = None
        self._known: tuple[str, Taken] = ("", Taken((), (), plan.max_batch_size or 0))
        self._loaded_at = 0.0
        self._size_bytes = 0
        self._retry_at = 0.0

    async def open(self, file: ModelFile) -> None:
        """Load its file; it is ready then. Raises ``ENGINE_UNAVAILABLE``."""
        engine = await asyncio.to_thread(self.plan.open, file)
        try:
            loaded = Loaded(self.plan, engine, self.counts)
        except HeadraceError:
            await asyncio.to_thread(engine.close)
            raise
        self.loaded = loaded
        self._known = (loaded.platform, loaded.taken)
        self._loaded_at = time.time()
        self._size_bytes = file.size_bytes
        self.state, self.reason = "ready", ""

    @property
    def full(self) -> bool:
        """Whether who comes now would find no room in its queue."""
        return self.loaded is not None and self.loaded.full

    def leave(self, reason: str) -> Loaded | None:
        """It is unloaded from now on; returns what is to be closed."""
        loaded, self.loaded = self.loaded, None
        self.state, self.reason, self._loaded_at = "unloaded", reason, 0.0
        return loaded

    def failed(self, error: HeadraceError, now: float) -> None:
        """It could not be loaded. Where that was for want of room it is no fault of its own."""
        full = error.retry_after_s is not None
        self.state, self.reason = ("unloaded" if full else "failed"), error.message
        self._retry_at = now + (error.retry_after_s or RETRY_S)

    def check_may_load(self, now: float) -> None:
        """Raise ``ENGINE_UNAVAILABLE`` for one that nobody may load by asking for it."""
        if self.held or now < self._retry_at:
            raise self.unavailable(now)

    def hold(self) -> None:
        """It is being unloaded by hand."""
        self.held = True
        self.reason = HELD

    def load_anew(self) -> None:
        """Forget that it was unloaded by hand, or failed."""
        self.held = False
        self._retry_at = 0.0
        if self.loaded is not None:
            self.reason = ""

    def unavailable(self, now: float) -> HeadraceError:
        """Why it cannot be used."""
        text = f"The model {self.plan.name} is not loaded: {self.reason}"
        wait_s = None if self.held else max(0.0, self._retry_at - now)
        return HeadraceError(Code.ENGINE_UNAVAILABLE, text, retry_after_s=wait_s)

    async def infer(
        self, request: TensorRequest, standing: Standing, came_at: float
    ) -> TensorResponse:
        """Run it; it is loaded. Raises as ``protocols.tensor_port.Tensors.infer``."""
        assert self.loaded is not None
        outputs = await self._counted(self.loaded.infer(request, standing, came_at), came_at)
        return TensorResponse(request.model, self.plan.version, outputs, request.id)

    async def run(self, pending: Pending, key: Hashable, standing: Standing) -> Any:
        """The answer to what is known to be right, in a run with others of this ``key``; it is loaded. Raises
        likewise."""
        assert self.loaded is not None
        return await self._counted(self.loaded.run(pending, key, standing), pending.came_at)

    async def _counted(self, work: Awaitable[tuple[Pending, A]], came_at: float) -> A:
        counts = self.counts
        try:
            pending, answer = await work
        except asyncio.CancelledError:
            counts.cancelled += 1
            raise
        except HeadraceError:
            counts.failed += 1
            counts.failed_s += time.monotonic() - came_at
            raise
        counts.requests += 1
        counts.rows += pending.rows
        counts.queue_s += pending.began_at - came_at
        counts.last_at = time.time()
        return answer

    def describe(self, versions: tuple[str, ...]) -> TensorModel:
        """As clients see it."""
        platform, taken = self._known
        return TensorModel(
            name=self.plan.model,
            version=self.plan.version,
            versions=versions,
            platform=platform,
            inputs=taken.inputs,
            outputs=taken.outputs,
            max_batch_size=taken.max_batch_size,
            state=self.state,
            reason=self.reason,
            loaded_at=self._loaded_at,
            size_bytes=self._size_bytes,
            labels=self.plan.labels,
        )


def _check_labels(plan: Plan, engine: TensorEngine) -> None:
    names = [spec.name for spec in engine.outputs]
    for name in plan.labels:
        if name not in names:
            text = f"labels.{name}: the model has no such output; it has {', '.join(names)}"
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, text)


def _max_batch_size(plan: Plan, engine: TensorEngine) -> int:
    if plan.max_batch_size is None:
        return USUAL_BATCH if engine.batch_dimension == "named" else 0
    if plan.max_batch_size and engine.batch_dimension == "none":
        shapes = ", ".join(
            f"{spec.name} {list(spec.shape)}" for spec in (*engine.inputs, *engine.outputs)
        )
        text = (
            f"max_batch_size is {plan.max_batch_size}, and not every tensor of the model has a free "
            f"first dimension: {shapes}; set it to 0"
        )
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, text)
    return plan.max_batch_size
