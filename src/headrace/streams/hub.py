"""``Hub``: finds the log of a generation, running or kept.

Running logs are held until they end; an ended one lives on as long as a reader holds it, and is
opened from the store when somebody asks again. Of those, the last few stay at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.hold import Hold
from headrace.streams.log import Log
from headrace.streams.opened import OpenedLogs
from headrace.streams.store import KeptLog, LogHeader, Store


class Hub:
    """All logs on one store. On the event loop thread only."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._running: dict[str, Log] = {}
        self.behind: set[Hold] = set()
        self._opened = OpenedLogs()

    def __len__(self) -> int:
        """How many logs are running."""
        return len(self._running)

    @property
    def readers(self) -> int:
        """How many readers are attached to logs."""
        return len(self.behind) + sum(len(log.live) for log in self.running())

    def create(self, header: LogHeader) -> Log:
        """A new log; stored together with its first events. Raises ``ValueError`` if the id runs already."""
        id, running = header.id, self._running
        if id in running:
            raise ValueError(f"{id} exists already")
        log = running[id] = Log(header, self)
        return log

    def adopt(self, header: LogHeader, events: Sequence[Event]) -> Log:
        """Take up a log that :meth:`Store.open` found unfinished: append to it after these ``events``."""
        visible_seq = events[-1].seq if events else 0
        writer = self.store.writer(header.id)
        log = Log(header, self, visible_seq=visible_seq, writer=writer)
        self._running[header.id] = log
        return log

    def get(self, id: str) -> Log | None:
        """A running log."""
        return self._running.get(id)

    def running(self) -> list[Log]:
        """All running logs, oldest first."""
        return list(self._running.values())

    async def find(self, id: str) -> Log:
        """A running or kept log. Raises ``GENERATION_NOT_FOUND`` if there never was one, ``CURSOR_GONE`` if
        it was dropped by age, count or size."""
        log = self._running.get(id) or self._opened.get(id)
        if log is not None:
            return log
        kept = await self.store.find(id)
        if kept is None:
            raise HeadraceError(Code.GENERATION_NOT_FOUND, f"There is no generation {id} here.")
        return self._running.get(id) or self._open(kept)

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[LogHeader]:
        """A tenant's logs, running or kept, newest first."""
        fresh = [log.header for log in self._running.values() if not log.visible_seq]
        fresh = [header for header in fresh if header.is_of(tenant, session_id)]
        stored = await self.store.list(tenant, session_id, limit)
        known = {header.id for header in stored}
        return [*(one for one in reversed(fresh) if one.id not in known), *stored][:limit]

    async def delete(self, id: str) -> None:
        """Forget an ended log, also in the store; who has not read all of it loses it. Raises
        ``STORE_FAILED``."""
        await self.store.delete(id)
        self._opened.drop(id)
        for hold in list(self.behind):
            if hold.of(id):
                hold.lose(HeadraceError(Code.GENERATION_NOT_FOUND, f"{id} was deleted."))

    def forget(self, id: str) -> None:
        """No longer hold a running log that will get no terminal event in this process."""
        self._running.pop(id, None)

    def ended(self, log: Log) -> None:
        """Told by a log to which nothing more comes."""
        self._running.pop(log.header.id, None)

    def _open(self, kept: KeptLog) -> Log:
        log = Log(kept.header, self, visible_seq=kept.last_seq, end=kept.end)
        if kept.end is None:
            log.fail(_stopped(log.id))
            return log
        if not kept.header.request.keep:
            return log  # the store says each time whether it is still there
        self._opened.put(log)
        return log


def _stopped(id: str) -> HeadraceError:
    return HeadraceError(
        Code.STORE_FAILED,
        f"{id} stopped because its events could not be stored; the operator should check the disk",
    )
