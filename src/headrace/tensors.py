"""The way of tensors through the rooms: known model, limits, loaded, checked, batched, run.

Implements ``protocols.tensor_port.Tensors`` and ``onnx_texts.Tensors``. On the event loop thread; engines run on
threads of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import Any, Literal

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller
from headrace.domain.standing import Standing
from headrace.domain.tensors import (
    TensorCounts,
    TensorModel,
    TensorRequest,
    TensorResponse,
)
from headrace.engines.tensor_runs import Pending
from headrace.protocols.port import ModelCard
from headrace.standings import Stand
from headrace.tensor_loading import News, TensorLoading
from headrace.tensor_version import TensorVersion

TakeRequest = Callable[[str, str, str], object]
"""Lets in a request of a tenant, a key, for a model. Raises ``RATE_LIMITED``."""


class Served(msgspec.Struct, frozen=True):
    """A name and its versions, the newest last. ``created``: Unix seconds. ``load``: whether the newest is loaded at
    the start. ``fallback``: another, for requests that spill."""

    name: str
    aliases: tuple[str, ...]
    created: int
    load: Literal["start", "first_use"]
    versions: tuple[TensorVersion, ...]
    fallback: str | None = None

    @property
    def newest(self) -> TensorVersion:
        return self.versions[-1]

    def find(self, version: str) -> TensorVersion:
        """Raises ``MODEL_NOT_FOUND``."""
        if not version:
            return self.newest
        for one in self.versions:
            if one.plan.version == version:
                return one
        known = ", ".join(one.plan.version for one in self.versions)
        text = f"The model {self.name} has no version {version[:100]!r}; it has {known}."
        raise HeadraceError(Code.MODEL_NOT_FOUND, text, param="model_version")

    def readiness(self) -> tuple[bool, str]:
        """Whether a request would be answered, and in words why not."""
        one = self.newest
        if one.state == "ready" or (
            self.load == "first_use" and one.state in ("unloaded", "loading") and not one.held
        ):
            return True, ""
        return False, f"model {self.name} is {one.state}" + (
            f": {one.reason}" if one.reason else ""
        )


class TensorService:
    """``stand``: how a request stands in its queue. ``take_request``: None where nobody is limited. ``news``: hears of
    versions that were loaded and unloaded. ``closed``: called when nothing runs any more."""

    def __init__(
        self,
        models: Sequence[Served],
        *,
        budget_bytes: int | None,
        news: News,
        stand: Stand,
        take_request: TakeRequest | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._by_name = {name: model for model in models for name in (model.name, *model.aliases)}
        self._loading = TensorLoading(budget_bytes, news)
        self._stand = stand
        self._take_request = take_request
        self._closed = closed
        self._closing = False
        self.under_way = 0
        """Requests that were let in and not answered yet."""

    # What protocols ask.

    def models(self) -> Sequence[TensorModel]:
        return [
            one.describe(_names(model)) for model in self._models.values() for one in model.versions
        ]

    def model(self, name: str, version: str = "") -> TensorModel:
        model = self._find(name)
        return model.find(version).describe(_names(model))

    def counts(self, name: str, version: str = "") -> TensorCounts:
        return self._find(name).find(version).counts

    async def infer(self, request: TensorRequest, caller: Caller) -> TensorResponse:
        came_at = monotonic()
        standing = self._stand(caller, request.priority, came_at)
        if request.timeout_s is not None:
            deadline = min(standing.deadline, came_at + request.timeout_s)
            standing = msgspec.structs.replace(standing, deadline=deadline)
        if standing.overflow == "spill":
            request = self._spilled(request)
        version = self._let_in(request.model, request.version, caller)
        await self._begin(version)
        try:
            return await version.infer(request, standing, came_at)
        finally:
            self._end(version)

    async def load(self, name: str) -> None:
        model = self._find(name)
        for version in model.versions:
            version.load_anew()
        await self._loading.ready(model.newest)

    async def unload(self, name: str) -> None:
        versions = self._find(name).versions
        for version in versions:
            version.hold()
        await asyncio.gather(*map(self._loading.unload, versions))

    # What makes vectors of texts asks.

    async def ready(self, name: str) -> TensorModel:
        """The newest version, loaded if it is not, so that it is known what it takes. Raises ``MODEL_NOT_FOUND`` and
        ``ENGINE_UNAVAILABLE``."""
        model = self._find(name)
        await self._loading.ready(model.newest)
        return model.newest.describe(_names(model))

    async def run_admitted(
        self, name: str, pending: Pending, key: Hashable, standing: Standing
    ) -> Any:
        """The answer to a part of a request, by the newest version, in a run with others of this ``key``. Its caller's
        limits were asked, and the model can take it. Raises as :meth:`infer`."""
        version = self._find(name).newest
        pending.came_at = monotonic()
        await self._begin(version)
        try:
            return await version.run(pending, key, standing)
        finally:
            self._end(version)

    def full(self, name: str) -> bool:
        """Whether who asks for its newest version now would find no room. Raises ``MODEL_NOT_FOUND``."""
        return self._find(name).newest.full

    # What the generative service asks.

    def cards(self) -> Sequence[ModelCard]:
        """All models, as ``/v1/models`` has them."""
        return [_card(model) for model in self._models.values()]

    def card(self, name: str) -> ModelCard | None:
        """One by name or alias; None for what is no model of tensors."""
        model = self._by_name.get(name)
        return None if model is None else _card(model)

    # What the app asks.

    def all_counts(self) -> Sequence[tuple[TensorModel, TensorCounts]]:
        """Of every version; from any thread."""
        return [
            (one.describe(_names(model)), one.counts)
            for model in self._models.values()
            for one in model.versions
        ]

    async def load_first(self) -> None:
        """Load what shall be there from the start. What cannot be loaded is logged, and shown as failed."""
        first = [model.newest for model in self._models.values() if model.load == "start"]
        await asyncio.gather(*map(self._loading.ready, first), return_exceptions=True)

    def tick(self, now: float) -> None:
        """Unload what rests too long. ``now``: monotonic seconds."""
        self._loading.tick(now)

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, let those that are there end within ``grace_s`` seconds, free all."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self._loading.drained()
        except TimeoutError:
            pass
        await self._loading.close()
        if self._closed is not None:
            self._closed()

    async def _begin(self, version: TensorVersion) -> None:
        """It is loaded and used from now on, until :meth:`_end`."""
        if self._closing:
            raise _shutting_down()
        if version.loaded is None or version.held:
            await self._loading.ready(version)
        self._loading.began(version)
        self.under_way += 1

    def _end(self, version: TensorVersion) -> None:
        self.under_way -= 1
        self._loading.ended(version)

    def _spilled(self, request: TensorRequest) -> TensorRequest:
        """The same for the other model, where there is one and this one's queue is full."""
        model = self._find(request.model)
        if model.fallback is None or not model.find(request.version).full:
            return request
        return msgspec.structs.replace(request, model=model.fallback, version="")

    def _let_in(self, name: str, version: str, caller: Caller) -> TensorVersion:
        """What was asked for, and a request of the caller's limits for it."""
        model = self._find(name)
        found = model.find(version)
        if self._take_request is not None:
            self._take_request(caller.tenant, caller.key_id, model.name)
        return found

    def _find(self, name: str) -> Served:
        """By name or alias. Raises ``MODEL_NOT_FOUND`` naming what there is."""
        model = self._by_name.get(name)
        if model is None:
            text = (
                f"No model {name[:200]!r} takes tensors here; these do: {', '.join(self._models)}."
            )
            raise HeadraceError(Code.MODEL_NOT_FOUND, text, param="model")
        return model


def _names(model: Served) -> tuple[str, ...]:
    return tuple(one.plan.version for one in model.versions)


def _card(model: Served) -> ModelCard:
    ready, reason = model.readiness()
    newest = model.newest
    return ModelCard(
        name=model.name,
        aliases=model.aliases,
        created=model.created,
        type="tensors",
        version=newest.plan.version,
        parameters=0,
        max_tokens=0,
        context=0,
        slots=newest.plan.instances,
        ready=ready,
        reason=reason,
    )


def _shutting_down() -> HeadraceError:
    return HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down.", retry_after_s=5.0)
