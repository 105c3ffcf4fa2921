"""What every stream has that follows a log for a client: it lags, is gone on with, ends, and lets go of its log."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.protocols.port import Subscription


class Open(Protocol):
    """The streams under way."""

    def discard(self, stream: Any) -> None: ...


class Follower:
    """``streams``: those under way, of which this is one until it closes."""

    __slots__ = ("_closed", "_lagging", "_open", "_subscription")

    def __init__(self, streams: Open) -> None:
        self._open = streams
        self._lagging = False
        self._closed = False
        self._subscription: Subscription | None = None

    def _close(self) -> None:
        """Take no more. The subscription holds this reader, so that letting go of it leaves no cycle."""
        self._closed = True
        self._subscription = None
        self._open.discard(self)

    def _is_over(self) -> bool:
        """Any call to others may have closed this; so this is asked, never remembered."""
        return self._closed

    def _gone(self) -> None:
        """The client left."""
        subscription = self._subscription
        self._close()
        if subscription is not None:
            subscription.close()

    def _drained(self) -> None:
        """The client has taken what was sent."""
        if self._lagging and self._subscription is not None:
            self._lagging = False
            self._subscription.resume()
