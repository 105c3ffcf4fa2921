"""``/admin/models``: which models are loaded, and loading and unloading those that take tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.admin import NO_STORE, said_json
from headrace.protocols.body import Body
from headrace.protocols.call import Call
from headrace.protocols.port import Service
from headrace.protocols.router import Route
from headrace.protocols.tensor_port import Tensors


class ModelState(msgspec.Struct, frozen=True, gc=False):
    """A model, or a version of one that takes tensors. ``state``: ``unavailable`` is one that generates and has no
    engine that serves; ``reason`` says more. ``loaded_at``: Unix seconds, 0 while it is not, or where nobody noted it.
    ``size_bytes``: of its file, 0 before it was ever loaded."""

    name: str
    version: str
    type: str
    state: Literal["unloaded", "loading", "ready", "failed", "unavailable"]
    reason: str
    loaded_at: float
    size_bytes: int


class ModelStates(msgspec.Struct, frozen=True, gc=False):
    object: Literal["list"]
    data: Sequence[ModelState]


class ModelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Which one, by name or alias: all its versions are meant."""

    model: str


_body = Body(ModelBody)


class AdminModels:
    """``tensors``: None without models that take tensors."""

    def __init__(self, service: Service, tensors: Tensors | None) -> None:
        self._service = service
        self._tensors = tensors

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET", "/admin/models", self.list, scope="admin"),
            Route("POST", "/admin/models/load", self.load, scope="admin"),
            Route("POST", "/admin/models/unload", self.unload, scope="admin"),
        )

    def list(self, call: Call, _: str) -> None:
        call.json(self._states(), headers=[NO_STORE])

    async def load(self, call: Call, _: str) -> None:
        model = _body.decode_closed(said_json(call)).model
        await self._loadable(model).load(model)
        call.json(self._states(), headers=[NO_STORE])

    async def unload(self, call: Call, _: str) -> None:
        model = _body.decode_closed(said_json(call)).model
        await self._loadable(model).unload(model)
        call.json(self._states(), headers=[NO_STORE])

    def _loadable(self, model: str) -> Tensors:
        """Raises ``MODEL_NOT_FOUND``, and ``UNSUPPORTED`` for a model that generates."""
        card = self._service.model(model)
        if self._tensors is None or card.type != "tensors":
            text = f"The model {card.name} is served as long as the server runs."
            raise HeadraceError(Code.UNSUPPORTED, text, param="model")
        return self._tensors

    def _states(self) -> ModelStates:
        generating = [
            ModelState(
                card.name,
                card.version,
                card.type,
                "ready" if card.ready else "unavailable",
                card.reason,
                0.0,
                0,
            )
            for card in self._service.models()
            if card.type != "tensors"
        ]
        versions = [] if self._tensors is None else self._tensors.models()
        taking = [
            ModelState(
                one.name,
                one.version,
                "tensors",
                one.state,
                one.reason,
                one.loaded_at,
                one.size_bytes,
            )
            for one in versions
        ]
        return ModelStates("list", [*generating, *taking])
