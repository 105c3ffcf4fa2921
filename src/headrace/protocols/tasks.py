"""The tasks of the few handlers that must wait for something, owned in one place."""

from __future__ import annotations

import asyncio
from functools import partial

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.pending import Guarded

MAX_TASKS = 4096
"""Handlers waiting at once; one more is refused with ``QUEUE_FULL``."""


class Tasks:
    """A bounded set of tasks, cancelled by :meth:`close`."""

    def __init__(self, limit: int = MAX_TASKS) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Guarded) -> asyncio.Task[None]:
        """Raises ``QUEUE_FULL``."""
        if len(self._tasks) >= self._limit:
            work.close()
            raise HeadraceError(
                Code.QUEUE_FULL, "Too many look-ups are under way; try again.", retry_after_s=1.0
            )
        task = asyncio.get_running_loop().create_task(work.run())
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, work))
        return task

    def _over(self, work: Guarded, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        work.close()

    async def close(self) -> None:
        """Cancel all and wait until they are gone."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
