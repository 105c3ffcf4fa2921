"""Abort tokens: a client names its request with one, and ends it later without knowing its id."""

from __future__ import annotations

from typing import Generic, TypeVar

G = TypeVar("G")


class AbortTokens(Generic[G]):
    """Running generations by tenant and token. Bounded by them: an entry goes when its generation ends."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], list[G]] = {}

    def add(self, tenant: str, token: str, generation: G) -> None:
        self._running.setdefault((tenant, token), []).append(generation)

    def remove(self, tenant: str, token: str, generation: G) -> None:
        generations = self._running.get((tenant, token), [])
        if generation in generations:
            generations.remove(generation)
        if not generations:
            self._running.pop((tenant, token), None)

    def find(self, tenant: str, token: str) -> list[G]:
        """Generations of this tenant that carry the token; another tenant's are never found."""
        return list(self._running.get((tenant, token), ()))
