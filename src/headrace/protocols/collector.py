"""A reader that folds a whole log for something that is not the answer to its request alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.domain.errors import HeadraceError
from headrace.protocols.fold import Fold
from headrace.protocols.port import Generation, Subscription

Done = Callable[[Fold | HeadraceError], None]


class Collector(Fold, eq=False):
    """Calls ``done`` exactly once, with the fold of the whole log or with why it cannot be read; never
    after :meth:`close`."""

    done: Done | None = None
    subscription: Subscription | None = None

    def attach(self, generation: Generation, *, client: bool) -> None:
        """Begin to read; a log that has ended is told of before this returns. Closed already, it is a client that
        has left."""
        subscription = generation.attach(self, client=client)
        if self.done is None:
            subscription.close()
        else:
            self.subscription = subscription

    def over(self) -> None:
        self._tell(self)

    def lost(self, error: HeadraceError) -> None:
        self._tell(error)

    def close(self) -> None:
        """The client left."""
        subscription, self.subscription = self.subscription, None
        self.done = None
        if subscription is not None:
            subscription.close()

    def _tell(self, result: Fold | HeadraceError) -> None:
        done, self.done = self.done, None
        self.subscription = None  # it holds this reader: no cycle is left behind
        if done is not None:
            done(result)


async def folded(generation: Generation, *, client: bool) -> Fold:
    """The fold of the whole log, once it has ended. Raises why it cannot be read. ``client``: the generation may be
    cancelled if nobody else reads it and this is given up."""
    ended: asyncio.Future[Fold | HeadraceError] = asyncio.get_running_loop().create_future()

    def done(result: Fold | HeadraceError) -> None:
        if not ended.done():  # given up, and not told yet
            ended.set_result(result)

    collector = Collector(done=done)
    collector.attach(generation, client=client)
    try:
        result = await ended
    finally:
        collector.close()
    if isinstance(result, HeadraceError):
        raise result
    return result
