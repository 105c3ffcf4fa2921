"""``Checkpointer``: brings what is in the journal into SQLite, later and in groups, on one thread.

One commit is under way at a time and the queue keeps its order, so when a journal file comes out of the
queue, everything that was queued before it is in SQLite and the file can go.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from headrace.streams.bounds import Clock
from headrace.streams.database import Changes, Database
from headrace.streams.entry import Entry
from headrace.streams.pack import Whole

COMMIT_AFTER_S = 0.1
COMMIT_AGAIN_S = 0.02
"""Between commits while there is more than fits into one."""
COMMIT_LOGS = 256
"""Logs in one commit: about a millisecond of the event loop's time."""
BACKLOG_BYTES = 64 << 20
"""Encoded events in memory because SQLite lacks them. At the bound the event loop waits for the thread."""
RETRY_S = 1.0

_logger = logging.getLogger("headrace.streams")


class _Commit(msgspec.Struct):
    """The commit under way."""

    entries: list[Entry]
    wholes: dict[str, Whole]
    obsolete: list[Path]
    future: Future[None]


class Checkpointer:
    """Commits queued logs. ``position`` says the journal's frame and the next log's number; ``saved`` is
    called with each log that a commit has brought up to date. ``failure``: why the last commit failed."""

    def __init__(
        self,
        database: Database,
        thread: ThreadPoolExecutor,
        *,
        position: Callable[[], tuple[int, int]],
        saved: Callable[[Entry], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._thread = thread
        self._position = position
        self._saved = saved
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # Logs that were over before they were committed. Bounded, with the queue, by BACKLOG_BYTES.
        self._wholes: dict[str, Whole] = {}
        # Each log is in it once at most.
        self._queue: deque[Entry | Path] = deque()
        self._commit: _Commit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.held_bytes = 0
        self.commits = 0
        self.failure: BaseException | None = None

    def queue(self, entry: Entry) -> None:
        """Commit this log soon."""
        if not entry.queued:
            entry.queued = True
            self._queue.append(entry)
            self._schedule(COMMIT_AFTER_S)

    def add(self, log: Whole) -> None:
        """Commit this log, of which SQLite knows nothing, soon."""
        self._wholes[log.id] = log
        self.held_bytes += len(log.header) + len(log.run)
        if self._timer is None and self._commit is None:
            self._schedule(COMMIT_AFTER_S)

    def whole(self, id: str) -> Whole | None:
        """One of :meth:`add` that SQLite may not have yet."""
        log = self._wholes.get(id)
        if log is None and self._commit is not None:
            return self._commit.wholes.get(id)
        return log

    def wholes(self) -> list[Whole]:
        """All of :meth:`add` that SQLite may not have yet."""
        under_way = () if self._commit is None else self._commit.wholes.values()
        return [*under_way, *self._wholes.values()]

    def retire(self, file: Path) -> None:
        """Delete this journal file once all that is queued now is in SQLite, and synced."""
        self._queue.append(file)
        self._schedule(COMMIT_AFTER_S)

    def relieve(self) -> None:
        """Wait, and everybody with us, until half of the backlog is in SQLite. Stops where that fails."""
        while self.held_bytes > BACKLOG_BYTES // 2 and self._waiting():
            self._finish_now()
            if self.failure is not None:
                return

    async def drain(self) -> None:
        """Commit all that is queued; stops where that fails."""
        while self._waiting():
            self.stop()
            if self._commit is None:
                self._start()
            commit = self._commit
            assert commit is not None
            done = asyncio.wrap_future(commit.future)
            await asyncio.wait([done])
            done.exception()  # looked at; _done judges it
            self._done(commit)
            if self.failure is not None:
                break
        self.stop()

    def stop(self) -> None:
        """No further commit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _waiting(self) -> bool:
        return bool(self._queue or self._wholes or self._commit)

    def _finish_now(self) -> None:
        self.stop()
        if self._commit is None:
            self._start()
        commit = self._commit
        assert commit is not None
        commit.future.exception()
        self._done(commit)

    def _schedule(self, delay_s: float) -> None:
        if self._timer is None and self._commit is None:
            self._timer = self._loop.call_later(delay_s, self._start)

    def _start(self) -> None:
        self._timer = None
        entries, obsolete = self._next()
        wholes, self._wholes = self._wholes, {}
        changes = Changes(*self._position())
        changes.wholes = wholes.values()
        for entry in entries:
            entry.save(changes)
        future = self._thread.submit(self._write, changes, obsolete)
        self._commit = _Commit(entries, wholes, obsolete, future)
        future.add_done_callback(self._wake)  # not one that holds the commit: no cycle

    def _next(self) -> tuple[list[Entry], list[Path]]:
        """The head of the queue: logs, up to the first journal file that could go with them."""
        entries: list[Entry] = []
        obsolete: list[Path] = []
        while self._queue and len(entries) < COMMIT_LOGS:
            head = self._queue.popleft()
            if isinstance(head, Path):
                obsolete.append(head)
                break
            head.queued = False
            if head.dirty:
                entries.append(head)
        return entries, obsolete

    def _write(self, changes: Changes, obsolete: list[Path]) -> None:
        """On the thread."""
        self._database.commit(changes, self._clock())
        try:
            for file in obsolete:
                self._database.sync()
                file.unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            _logger.error("a journal file stays until the next start: %s", error)

    def _wake(self, future: Future[None]) -> None:
        """On the thread: back to the event loop, unless that is gone."""
        try:
            self._loop.call_soon_threadsafe(self._came_back, future)
        except RuntimeError:
            return

    def _came_back(self, future: Future[None]) -> None:
        if self._commit is not None and self._commit.future is future:
            self._done(self._commit)

    def _done(self, commit: _Commit) -> None:
        if self._commit is not commit:
            return
        self._commit = None
        failure = commit.future.exception()
        if failure is None:
            self._succeeded(commit)
        else:
            self._failed(commit, failure)
        if self._queue or self._wholes:
            self._schedule(
                RETRY_S if self.failure else COMMIT_AGAIN_S if self._queue else COMMIT_AFTER_S
            )

    def _succeeded(self, commit: _Commit) -> None:
        self.commits += 1
        if self.failure is not None:
            _logger.warning("the store's database can be written again")
            self.failure = None
        self.held_bytes -= sum([log.size for log in commit.wholes.values()])
        for entry in commit.entries:
            self.held_bytes -= entry.saved()
            self._saved(entry)

    def _failed(self, commit: _Commit, failure: BaseException) -> None:
        if self.failure is None:
            _logger.error("the store's database cannot be written, trying again: %s", failure)
        self.failure = failure
        self._wholes = commit.wholes | self._wholes
        self._queue.extendleft(commit.obsolete)
        for entry in reversed(commit.entries):
            entry.unsaved()
            entry.queued = True
            self._queue.appendleft(entry)
