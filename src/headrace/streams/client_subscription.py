"""A client that reads a generation."""

from __future__ import annotations

from typing import Protocol

from headrace.streams.reader import Subscription


class Read(Protocol):
    """The generation, as its clients know it."""

    def client_closed(self) -> None: ...


class ClientSubscription:
    """A client's subscription: closing it before the end means that a client left."""

    __slots__ = ("_generation", "_inner", "_open")

    def __init__(self, inner: Subscription, generation: Read) -> None:
        self._inner = inner
        self._generation = generation
        self._open = True

    def resume(self) -> None:
        self._inner.resume()

    def close(self) -> None:
        self._inner.close()
        if self._open:
            self._open = False
            self._generation.client_closed()
