"""The ``Reader`` protocol: whoever looks at a log (a client's stream, a collector, a job)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Event


class Reader(Protocol):
    """Gets a log's events from ``seq`` 1 on, in order, each once. All calls on the event loop thread."""

    def events(self, events: Sequence[Event]) -> bool:
        """Take these. False: enough for now; nothing more comes until ``Subscription.resume``.
        The last batch of a log ends with its terminal event; after it the subscription is over."""

    def lost(self, error: HeadraceError) -> None:
        """The log cannot be read on (dropped by the store's bounds, store failed). The last call."""


class Subscription(Protocol):
    """A reader's hold on a log."""

    def resume(self) -> None:
        """Go on after ``events`` returned False."""

    def close(self) -> None:
        """Stop reading; idempotent."""
