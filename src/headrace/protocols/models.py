"""``/v1/models`` and ``/v1/model_info``: which models there are, by name or alias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from headrace.protocols.call import Call
from headrace.protocols.port import ModelCard, Service
from headrace.protocols.router import Route


class Model(msgspec.Struct, frozen=True, gc=False):
    """A model as OpenAI lists it. An alias is listed with the ``root`` that answers for it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str


class ModelList(msgspec.Struct, frozen=True, gc=False):
    object: Literal["list"]
    data: list[Model]


class ModelInfo(msgspec.Struct, frozen=True, gc=False):
    """Facts of a model. ``parameters``: weights, 0 if unknown. ``max_tokens``, ``context``: tokens.
    ``created_at``: Unix seconds."""

    name: str
    version: str
    type: str
    parameters: int
    max_tokens: int
    created_at: float
    context: int
    slots: int
    aliases: tuple[str, ...]
    ready: bool
    reason: str


class ModelEndpoints:
    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET", "/v1/models", self.list),
            Route("GET", "/v1/models/{id:path}", self.one),
            Route("GET", "/v1/model_info", self.info),
        )

    def list(self, call: Call, _: str) -> None:
        listed = [
            _listed(name, card)
            for card in self._service.models()
            for name in (card.name, *card.aliases)
        ]
        call.json(ModelList("list", listed))

    def one(self, call: Call, name: str) -> None:
        call.json(_listed(name, self._service.model(name)))

    def info(self, call: Call, _: str) -> None:
        """One model's facts by ``?model=``; without it those of the first model."""
        name = call.query().get("model") or self._first()
        call.json(info_of(self._service.model(name)))

    def _first(self) -> str:
        cards = self._service.models()
        return cards[0].name if cards else ""


def info_of(card: ModelCard) -> ModelInfo:
    return ModelInfo(
        card.name,
        card.version,
        card.type,
        card.parameters,
        card.max_tokens,
        float(card.created),
        card.context,
        card.slots,
        card.aliases,
        card.ready,
        card.reason,
    )


def _listed(name: str, card: ModelCard) -> Model:
    return Model(name, "model", card.created, "headrace", card.name)
