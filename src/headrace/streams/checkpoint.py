"""``Checkpointer``: brings what is in the journal into SQLite, later and in groups, on one thread.

One commit is under way at a time and the queue keeps its order, so when a journal file comes out of the
queue, everything that was queued before it is in SQLite and the file can be used again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from headrace.streams.bounds import Clock
from headrace.streams.database import Changes, Database
from headrace.streams.entry import Entry
from headrace.streams.journal import JournalFile
from headrace.streams.pack import Whole
from headrace.streams.repeats import Repeats

COMMIT_AFTER_S = 0.1
COMMIT_AT_LATEST_S = 1.0
"""While there are fewer than ``COMMIT_LOGS``: a commit writes about as much for one log as for a hundred."""
COMMIT_AGAIN_S = 0.02
"""Between commits while there is more than fits into one, and nobody waits for it to be done."""
COMMIT_LOGS = 256
"""Logs in one commit: about a millisecond of the event loop's time."""
BACKLOG_BYTES = 64 << 20
"""Of full journal files that SQLite lacks something of; what waits in memory is in them. At the bound the event
loop waits for the thread."""
RETRY_S = 1.0

_logger = logging.getLogger("headrace.streams")


class _Commit(msgspec.Struct):
    """The commit under way."""

    entries: list[Entry]
    wholes: dict[str, Whole]
    obsolete: list[JournalFile]
    future: Future[list[JournalFile]]


class Checkpointer:
    """Commits queued logs. ``position`` says the journal's frame and the next log's number; ``saved`` is
    called with each log that a commit has brought up to date, ``freed`` with each journal file that is cleared.
    ``failure``: why the last commit failed.

    ``wholes``: logs that were over before SQLite knew of them. Whoever adds one calls :meth:`wake` if this is
    ``idle``; ``now`` is about the time then. ``waiting_bytes``: of the files to be cleared.
    """

    def __init__(
        self,
        database: Database,
        thread: ThreadPoolExecutor,
        *,
        position: Callable[[], tuple[int, int]],
        saved: Callable[[Entry], None],
        freed: Callable[[JournalFile], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._thread = thread
        self._position = position
        self._saved = saved
        self._freed = freed
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.wholes: dict[str, Whole] = {}  # bounded, with the queue, by BACKLOG_BYTES
        self.repeats = Repeats()
        # Each log is in it once at most.
        self._queue: deque[Entry | JournalFile] = deque()
        self._commit: _Commit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self.idle = True
        self.now = 0.0
        self.waiting_bytes = 0
        self._catching_up: set[asyncio.Future[None]] = set()  # bounded by the jobs that run
        self.commits = 0
        self.failure: BaseException | None = None
        self._failed_at = 0.0

    def queue(self, entry: Entry) -> None:
        """Commit this log soon."""
        if not entry.queued:
            entry.queued = True
            self._queue.append(entry)
            if self.idle:
                self.wake()

    def whole(self, id: str) -> Whole | None:
        """One of ``wholes`` that SQLite may not have yet."""
        log = self.wholes.get(id)
        if log is None and self._commit is not None:
            return self._commit.wholes.get(id)
        return log

    def all_wholes(self) -> list[Whole]:
        """All that SQLite may not have yet."""
        under_way = () if self._commit is None else self._commit.wholes.values()
        return [*under_way, *self.wholes.values()]

    def retire(self, file: JournalFile) -> None:
        """Clear this journal file once all that is queued now is in SQLite, and synced."""
        self._queue.append(file)
        self.waiting_bytes += file.size
        if self.idle:
            self.wake()

    @property
    def failing(self) -> bool:
        """Whether a commit has just failed, so that another would fail too, after everybody had waited for it."""
        return self.failure is not None and time.monotonic() - self._failed_at < RETRY_S

    def relieve(self) -> None:
        """Wait, and everybody with us, until half of the backlog is in SQLite. Stops where that fails."""
        while self.waiting_bytes > BACKLOG_BYTES // 2 and self._waiting():
            self._finish_now()
            if self.failure is not None:
                return

    async def caught_up(self) -> None:
        """Wait, alone, until no full journal file waits, or a commit fails: ``failure`` says which. Until then
        there are no pauses."""
        while self.waiting_bytes and self.failure is None:
            if self._timer is not None:
                self._timer.cancel()
                self._again(0.0, self._start)
            done = self._loop.create_future()
            self._catching_up.add(done)
            try:
                await done
            finally:
                self._catching_up.discard(done)

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
        self.idle = self._commit is None

    def wake(self) -> None:
        """There is something to commit, soon. To be called when it is idle."""
        self._deadline = self._loop.time() + COMMIT_AT_LATEST_S
        self._again(COMMIT_AFTER_S, self._tick)

    def _again(self, delay_s: float, then: Callable[[], None]) -> None:
        self.idle = False
        self.now = self._clock()
        self._timer = self._loop.call_later(delay_s, then)

    def _tick(self) -> None:
        few = len(self.wholes) + len(self._queue) < COMMIT_LOGS and not self.waiting_bytes
        if few and self._loop.time() < self._deadline:
            self._again(COMMIT_AFTER_S, self._tick)
        else:
            self._start()

    def _waiting(self) -> bool:
        return bool(self._queue or self.wholes or self._commit)

    def _finish_now(self) -> None:
        self.stop()
        if self._commit is None:
            self._start()
        commit = self._commit
        assert commit is not None
        commit.future.exception()
        self._done(commit)

    def _start(self) -> None:
        self._timer = None
        self.idle = False
        entries, obsolete = self._next()
        wholes, self.wholes = self.wholes, {}
        changes = Changes(*self._position())
        changes.wholes = wholes.values()
        changes.repeats = self.repeats.take()
        for entry in entries:
            entry.save(changes)
        future = self._thread.submit(self._write, changes, obsolete)
        self._commit = _Commit(entries, wholes, obsolete, future)
        future.add_done_callback(self._committed)  # not one that holds the commit: no cycle

    def _next(self) -> tuple[list[Entry], list[JournalFile]]:
        """The head of the queue: logs, up to the first journal file that could go with them."""
        entries: list[Entry] = []
        obsolete: list[JournalFile] = []
        while self._queue and len(entries) < COMMIT_LOGS:
            head = self._queue.popleft()
            if isinstance(head, JournalFile):
                obsolete.append(head)
                break
            head.queued = False
            if head.dirty:
                entries.append(head)
        return entries, obsolete

    def _write(self, changes: Changes, obsolete: list[JournalFile]) -> list[JournalFile]:
        """On the thread. Returns the files that are cleared."""
        self._database.commit(changes, self._clock())
        cleared = []
        try:
            for file in obsolete:
                self._database.sync()
                file.begin(0)
                cleared.append(file)
        except (OSError, sqlite3.Error) as error:
            _logger.error("a journal file stays until the next start: %s", error)
        return cleared

    def _committed(self, future: Future[list[JournalFile]]) -> None:
        """On the thread: back to the event loop, unless that is gone."""
        try:
            self._loop.call_soon_threadsafe(self._came_back, future)
        except RuntimeError:
            return

    def _came_back(self, future: Future[list[JournalFile]]) -> None:
        if self._commit is not None and self._commit.future is future:
            self._done(self._commit)

    def _done(self, commit: _Commit) -> None:
        if self._commit is not commit:
            return
        self._commit = None
        self.idle = True
        failure = commit.future.exception()
        if failure is None:
            self._succeeded(commit)
        else:
            self._failed(commit, failure)
        if self.idle and (self._queue or self.wholes):
            if self.failure is not None:
                self._again(RETRY_S, self._start)
            elif self._queue:
                self._again(0.0 if self._catching_up else COMMIT_AGAIN_S, self._start)
            else:
                self.wake()
        if not self.waiting_bytes or self.failure is not None:
            self._tell_caught_up()

    def _tell_caught_up(self) -> None:
        for done in self._catching_up:
            if not done.done():
                done.set_result(None)

    def _succeeded(self, commit: _Commit) -> None:
        self.commits += 1
        if self.failure is not None:
            _logger.warning("the store's database can be written again")
            self.failure = None
        self.repeats.saved()
        for entry in commit.entries:
            entry.saved()
            self._saved(entry)
        self.waiting_bytes -= sum([file.size for file in commit.obsolete])
        for file in commit.future.result():
            self._freed(file)

    def _failed(self, commit: _Commit, failure: BaseException) -> None:
        if self.failure is None:
            _logger.error("the store's database cannot be written, trying again: %s", failure)
        self.failure = failure
        self._failed_at = time.monotonic()
        self.wholes = commit.wholes | self.wholes
        self.repeats.taken_back()
        self._queue.extendleft(commit.obsolete)
        for entry in reversed(commit.entries):
            entry.unsaved()
            entry.queued = True
            self._queue.appendleft(entry)
