"""What the protocol of embeddings needs of the rest. Implemented by ``headrace.embedding``."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.request import Caller
from headrace.protocols.port import Reservation


class Embedded(NamedTuple):
    """``reservation``: None where its caller has no limits. ``model``: as it was asked for, or the one that it spilled
    to."""

    embeddings: Embeddings
    reservation: Reservation | None
    model: str


class Embedder(Protocol):
    async def embed(self, request: EmbeddingRequest, caller: Caller) -> Embedded:
        """Vectors of its inputs. A cancelled call leaves its batch, if that does not run yet. Raises
        ``MODEL_NOT_FOUND``, ``UNSUPPORTED`` for a model that gives none and for dimensions that it has not,
        ``CONTEXT_LENGTH`` naming the input that is too long, ``INVALID_REQUEST`` for token ids that are none,
        ``RATE_LIMITED``, ``CONCURRENCY_LIMIT``, ``QUEUE_FULL``, ``QUEUE_TIMEOUT``, ``MODEL_LOADING``,
        ``ENGINE_UNAVAILABLE``, ``ENGINE_FAILED``, ``SHUTTING_DOWN``."""
