"""What the protocols of tensors and embeddings need of the rest. Implemented by ``headrace.tensors``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.domain.request import Caller
from headrace.domain.tensors import (
    Embeddings,
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
        """A version, the newest without a name. Raises ``MODEL_NOT_FOUND``, for an unknown version too."""

    def counts(self, name: str, version: str = "") -> TensorCounts: ...

    async def infer(self, request: TensorRequest, caller: Caller) -> TensorResponse:
        """Run it, together with others where that is faster; the model is loaded if it is not. A cancelled call
        leaves its batch, if that does not run yet. Raises ``INVALID_REQUEST`` (naming the input) for a wrong
        name, type, rank or shape, ``MODEL_NOT_FOUND``, ``RATE_LIMITED``, ``QUEUE_FULL``, ``QUEUE_TIMEOUT``,
        ``MODEL_LOADING``, ``ENGINE_FAILED``."""

    async def load(self, name: str) -> None:
        """Make its newest version ready. Raises ``MODEL_NOT_FOUND`` and ``ENGINE_UNAVAILABLE`` with the reason."""

    async def unload(self, name: str) -> None:
        """Free its memory once what runs is over; it is not loaded again before :meth:`load`."""

    async def embed(
        self, model: str, inputs: Sequence[str | Sequence[int]], caller: Caller
    ) -> Embeddings:
        """Vectors of texts or token ids, in their order. Raises as :meth:`infer`, and ``CONTEXT_LENGTH`` naming the
        input that is too long."""
