"""A reader that folds a whole log for something that is not the answer to its request alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Event
from headrace.protocols.fold import Fold
from headrace.protocols.port import Generation, Subscription

Done = Callable[[Fold | HeadraceError], None]


class Collector:
    """Calls ``done`` exactly once, with the fold of the whole log or with why it cannot be read; never
    after :meth:`close`."""

    __slots__ = ("_done", "_fold", "_subscription")

    def __init__(self, generation: Generation, done: Done, *, client: bool) -> None:
        self._fold = Fold(generation.request.choices)
        self._done: Done | None = done
        self._subscription: Subscription | None = None
        subscription = generation.attach(self, client=client)
        if self._done is not None:
            self._subscription = subscription

    def events(self, events: Sequence[Event]) -> bool:
        self._fold.add(events)
        if self._fold.end is not None:
            self._answer(self._fold)
        return True

    def lost(self, error: HeadraceError) -> None:
        self._answer(error)

    def close(self) -> None:
        """The client left."""
        subscription, self._subscription = self._subscription, None
        self._done = None
        if subscription is not None:
            subscription.close()

    def _answer(self, result: Fold | HeadraceError) -> None:
        done, self._done, self._subscription = self._done, None, None
        self._subscription = None  # it holds this reader: no cycle is left behind
        if done is not None:
            done(result)
