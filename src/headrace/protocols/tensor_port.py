"""What the protocols of tensors need of the rest. Implemented by ``headrace.tensors``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.domain.request import Caller
from headrace.domain.tensors import (
    TensorCounts,
    TensorModel,
    TensorRequest,
    TensorResponse,
)


class Tensors(Protocol):
    """The way of tensors through the rooms: limits, batcher, engine."""

    def models(self) -> Sequence[TensorModel]:
        """All versions of all models that take tensors, also those that are not loaded."""

    def model(self, name: str, version: str = "") -> TensorModel:
        """A version, the newest without a name. What it takes and gives is known once it was loaded. Raises
        ``MODEL_NOT_FOUND``, for an unknown version too."""

    def counts(self, name: str, version: str = "") -> TensorCounts:
        """Raises ``MODEL_NOT_FOUND``."""

    async def infer(self, request: TensorRequest, caller: Caller) -> TensorResponse:
        """Run it, together with others where that is faster; the model is loaded if it is not. A cancelled call
        leaves its batch, if that does not run yet. Raises ``INVALID_REQUEST`` (naming the input) for a wrong
        name, type, rank or shape, ``MODEL_NOT_FOUND``, ``RATE_LIMITED``, ``QUEUE_FULL``, ``QUEUE_TIMEOUT``,
        ``ENGINE_UNAVAILABLE`` if it cannot be loaded or was unloaded by hand, ``ENGINE_FAILED``,
        ``SHUTTING_DOWN``."""

    async def load(self, name: str) -> None:
        """Make its newest version ready. Raises ``MODEL_NOT_FOUND`` and ``ENGINE_UNAVAILABLE`` with the reason."""

    async def unload(self, name: str) -> None:
        """Free its memory once what runs is over; it is not loaded again before :meth:`load`."""
