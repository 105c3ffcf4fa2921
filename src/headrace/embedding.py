"""The way of an embedding request through the rooms: its caller's limits, what computes its model's vectors, figures.

There is no log: whoever leaves gets nothing, and asks again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.domain.ids import Ulids
from headrace.domain.request import Caller
from headrace.domain.standing import Standing
from headrace.limiting import Limiting
from headrace.protocols.embedding_port import Embedded
from headrace.protocols.port import ModelCard
from headrace.standings import Stand
from headrace.telemetry.counters import Counters

_logger = logging.getLogger("headrace.embedding")


class Texts(Protocol):
    """Makes vectors of texts, with one model."""

    @property
    def full(self) -> bool:
        """Whether who asks now would find no room."""

    async def embed(self, request: EmbeddingRequest, standing: Standing) -> Embeddings:
        """Raises as ``protocols.embedding_port.Embedder``."""

    async def load(self) -> None:
        """Fetch what it needs, before anybody asks. Raises :class:`HeadraceError`."""

    async def close(self) -> None:
        """Refuse what waits."""


class EmbeddingModel(NamedTuple):
    """``fallback``: another, for requests that spill."""

    texts: Texts
    meter: Counters
    fallback: str | None = None


class EmbeddingService:
    """Implements ``protocols.embedding_port.Embedder``. ``models``: those that give embeddings, by name; ``find``: any
    model that is served, by any of its names, raises ``MODEL_NOT_FOUND``; ``stand``: how a request stands in its
    queue."""

    def __init__(
        self,
        models: Mapping[str, EmbeddingModel],
        find: Callable[[str], ModelCard],
        stand: Stand,
        limiting: Limiting,
    ) -> None:
        self._models = models
        self._find = find
        self._stand = stand
        self._limiting = limiting
        self._ulids = Ulids()
        self._running = 0
        self._idle = asyncio.Event()
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether a request waits or is computed."""
        return self._running > 0

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> Embedded:
        name, model = self._model(request.model)
        if self._closing:
            raise HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down; try another.")
        began, wall = time.monotonic(), time.time()
        standing = self._stand(caller, request.priority, began)
        if standing.overflow == "spill" and model.fallback is not None and model.texts.full:
            name, model = self._model(model.fallback)
            request = msgspec.structs.replace(request, model=name)
        id = "emb_" + self._ulids.new(wall)
        reservation = self._limiting.reserve_inputs(id, request.inputs, caller, name, wall)
        model.meter.admitted_count += 1
        self._running += 1
        used = 0
        try:
            embeddings = await model.texts.embed(request, standing)
            used = embeddings.prompt_tokens
            model.meter.finished("stop", time.monotonic() - began, Usage(prompt_tokens=used))
        except HeadraceError as error:
            model.meter.failed(error.code, error.message, 0, time.monotonic() - began)
            raise
        except asyncio.CancelledError:
            model.meter.failed(Code.CLIENT_GONE, "The client left.", 0, time.monotonic() - began)
            raise
        finally:
            self._limiting.settle_inputs(reservation, used)
            self._running -= 1
            if not self._running:
                self._idle.set()
        return Embedded(embeddings, reservation, request.model)

    def _model(self, name: str) -> tuple[str, EmbeddingModel]:
        """Its own name, and what makes its vectors. Raises ``MODEL_NOT_FOUND`` and ``UNSUPPORTED``."""
        name = self._find(name).name
        model = self._models.get(name)
        if model is None:
            raise _gives_none(name)
        return name, model

    async def load(self) -> None:
        """Have all models ready. What cannot be is logged, and tried again when somebody asks."""
        for name, model in self._models.items():
            try:
                await model.texts.load()
            except HeadraceError as error:
                _logger.error("%s cannot give embeddings: %s", name, error.message)

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, let those under way end for ``grace_s`` seconds, then those that wait are refused."""
        self._closing = True
        if self._running and grace_s > 0:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                pass
        for model in self._models.values():
            await model.texts.close()


def _gives_none(name: str) -> HeadraceError:
    text = f"Model {name} gives no embeddings; whoever runs this server can set models.embedding."
    return HeadraceError(Code.UNSUPPORTED, text, param="model")
