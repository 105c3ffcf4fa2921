"""``SqliteStore``: logs that survive the process. A journal in front, SQLite behind.

All appends of one iteration of the event loop become one frame of the journal, with one ``write``; when it
returns they are visible. The journal is the truth. SQLite is a checkpoint that follows later and gets only
what it lacks: finished logs at the next commit, running ones when they have ``SEGMENT_BYTES`` or when
the journal file that holds them is full and has to go.

When SQLite cannot keep up, the event loop waits for it: slow, but bounded. When it fails, commits are
tried again; at ``BACKLOG_BYTES`` logs fail with ``STORE_FAILED``. A journal that cannot be written fails
the logs of that batch at once; the next batch may succeed. Nothing is lost silently.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.bounds import Bounds, Clock
from headrace.streams.checkpoint import BACKLOG_BYTES, Checkpointer
from headrace.streams.database import Database, Segment
from headrace.streams.encoded import decode_events
from headrace.streams.entry import SEGMENT_BYTES, Entry
from headrace.streams.journal import FILE_BYTES, Journal, journal_files
from headrace.streams.record import Record, begin_record, left_record
from headrace.streams.recovery import Replay, unfinished
from headrace.streams.store import Appended, KeptLog, LogHeader, Recovered

SWEEP_S = 60.0
"""How often a store that commits nothing looks for logs that became too old."""

_logger = logging.getLogger("headrace.streams")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class SqliteStore:
    """Implements :class:`headrace.streams.store.Store`. ``path``: the SQLite file; beside it lie the
    journal's files and a lock, so that one process at a time has it."""

    _loop: asyncio.AbstractEventLoop
    _database: Database
    _journal: Journal
    _checkpointer: Checkpointer

    def __init__(
        self,
        path: str | os.PathLike[str],
        bounds: Bounds | None = None,
        *,
        clock: Clock = time.time,
        journal_bytes: int = FILE_BYTES,
    ) -> None:
        self._path = Path(path).absolute()
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._journal_bytes = self._rotate_at = journal_bytes
        # Running logs, and ended ones that SQLite lacks. Bounded by the queues and BACKLOG_BYTES.
        self._entries: dict[str, Entry] = {}
        self._touched: list[Entry] = []
        self._notes: list[tuple[Entry, Record]] = []
        self._next_n = 1
        self.flushes = 0
        """Frames handed to the journal."""
        self._lock = -1
        self._stopped = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-store")

    async def open(self) -> list[Recovered]:
        self._loop = asyncio.get_running_loop()
        try:
            found = await self._loop.run_in_executor(self._thread, self._open)
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            self._unlock()
            raise HeadraceError(
                Code.STORE_FAILED, f"The store {self._path} cannot be opened: {error}"
            ) from error
        self._checkpointer = Checkpointer(
            self._database,
            self._thread,
            position=lambda: (self._journal.frame, self._next_n),
            saved=self._saved,
            clock=self._clock,
        )
        for entry, _ in found:
            self._entries[entry.header.id] = entry
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return [recovered for _, recovered in found]

    def _open(self) -> list[tuple[Entry, Recovered]]:
        """On the thread: everything into SQLite, then a new journal."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._database = Database(self._path, self._bounds)
        replay = Replay(self._database, self._clock())
        files = journal_files(self._path)
        replay.play(files)
        replay.save()
        self._next_n = replay.next_n
        self._journal = Journal(self._path, replay.frame)
        self._database.sync()
        for file in files:
            file.unlink()
        return unfinished(self._database)

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another process uses it; is a headrace running already?") from None

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def close(self) -> None:
        """All in SQLite, the journal gone. If SQLite fails, the journal stays for the next start."""
        if self._lock < 0:
            return
        self._flush()
        self._stopped = True  # nothing may reach the journal that is about to go
        self._queue_dirty()
        self._checkpointer.retire(self._journal.file)
        await self._checkpointer.drain()
        await self._stop()

    async def checkpoint(self) -> None:
        """Everything visible is in SQLite when this returns, unless SQLite fails."""
        self._queue_dirty()
        await self._checkpointer.drain()

    async def abandon(self) -> None:
        """Stop as a crash would: nothing more is written anywhere. For tests of what comes after."""
        if self._lock >= 0:
            self._checkpointer.stop()
            await self._stop()

    async def _stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._stopped = True
        self._touched.clear()
        self._notes.clear()
        self._journal.close()
        self._thread.submit(self._database.close)
        await asyncio.to_thread(self._thread.shutdown)
        self._unlock()

    @property
    def commits(self) -> int:
        """Commits of SQLite."""
        return self._checkpointer.commits

    # Writing.

    def begin(self, log: Appended, header: LogHeader) -> None:
        self._entries[header.id] = Entry.new(self._next_n, header)
        self._next_n += 1

    def append(self, log: Appended, events: Sequence[Event], raw: Sequence[Delta]) -> None:
        entry = self._entries.get(log.id)
        if self._stopped:
            log.store_failed(_shutting_down())
            return
        if entry is None or entry.failed:
            return  # the log was told
        if not entry.touched:
            self._flush_soon()
            entry.touched, entry.log = True, log
            self._touched.append(entry)
        entry.add(events, raw)

    def left(self, log: Appended, left_at: float | None) -> None:
        entry = self._entries.get(log.id)
        if entry is None or entry.failed or self._stopped:
            return
        if entry.begun or entry.touched:
            self._flush_soon()
            self._notes.append((entry, left_record(entry.n, left_at)))
        else:
            entry.left_at = left_at  # written with its beginning

    def _flush_soon(self) -> None:
        if not self._touched and not self._notes:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One frame for everything appended since the last; then it is visible."""
        touched, self._touched = self._touched, []
        notes, self._notes = self._notes, []
        if not touched and not notes:
            return
        self.flushes += 1
        parts: list[bytes] = []
        written: list[tuple[Entry, Record, Sequence[Event]]] = []
        for entry in touched:
            entry.touched = False
            events = entry.fresh
            record = entry.next_record()
            if not entry.begun:
                parts.append(begin_record(entry.n, entry.encoded).encode())
            parts.append(record.encode())
            written.append((entry, record, events))
        for entry, record in notes:
            parts.append(record.encode())
            written.append((entry, record, ()))
        try:
            self._check_backlog()
            self._journal.write(b"".join(parts))
        except OSError as error:
            self._fail(touched, error)
            return
        self._apply(written)
        for entry, _, events in written:
            if events and entry.log is not None:
                entry.log.stored(events)

    def _apply(self, written: Sequence[tuple[Entry, Record, Sequence[Event]]]) -> None:
        now = self._clock()
        checkpointer = self._checkpointer
        for entry, record, _ in written:
            entry.apply(record, now)
            checkpointer.held_bytes += len(record.run)
            if entry.end is not None or len(entry.pending) >= SEGMENT_BYTES:
                checkpointer.queue(entry)
        if self._journal.size >= self._rotate_at:
            self._rotate()

    def _rotate(self) -> None:
        """Go on in a new journal file; the full one goes when SQLite has all of it."""
        full = self._journal.file
        try:
            self._journal.rotate()
        except OSError as error:
            _logger.error("the store's journal stays in %s: %s", full.name, error)
            self._rotate_at = self._journal.size + self._journal_bytes
            return
        self._rotate_at = self._journal_bytes
        self._queue_dirty()
        self._checkpointer.retire(full)

    def _queue_dirty(self) -> None:
        for entry in self._entries.values():
            if entry.dirty:
                self._checkpointer.queue(entry)

    def _check_backlog(self) -> None:
        """Raises ``OSError`` if too much waits for a SQLite that does not take it."""
        checkpointer = self._checkpointer
        if checkpointer.held_bytes < BACKLOG_BYTES:
            return
        self._queue_dirty()
        checkpointer.relieve()
        if checkpointer.failure is not None:
            raise OSError(f"its database cannot be written: {checkpointer.failure}")

    def _fail(self, entries: Sequence[Entry], error: OSError) -> None:
        """These logs end here for their readers; the store goes on."""
        _logger.error("%d logs cannot be stored in %s: %s", len(entries), self._path, error)
        failure = HeadraceError(
            Code.STORE_FAILED,
            f"The generation cannot be stored ({error.strerror or error}); the server's operator can "
            "make room on its disk.",
        )
        for entry in entries:
            entry.failed = True
            if entry.dirty:
                self._checkpointer.queue(entry)
            elif entry.flight is None:
                self._entries.pop(entry.header.id, None)
            if entry.log is not None:
                entry.log.store_failed(failure)

    def _saved(self, entry: Entry) -> None:
        if (entry.end is not None or entry.failed) and not entry.dirty:
            self._entries.pop(entry.header.id, None)

    # Reading.

    async def find(self, id: str) -> KeptLog | None:
        entry = self._entries.get(id)
        if entry is not None:
            return entry.kept()
        row = await self._ask(self._database.row, id, self._clock())
        return None if row is None else row.kept()

    def recent(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        entry = self._entries.get(id)
        return [] if entry is None else entry.newest(after, limit_bytes)

    async def read(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        if events := self.recent(id, after, limit_bytes):
            return events
        entry = self._entries.get(id)
        if entry is not None:
            n = entry.n
        else:
            row = await self._ask(self._database.row, id, self._clock())
            if row is None:
                return []
            n = row.n
        return await self._read_back(id, n, after, limit_bytes)

    async def _read_back(self, id: str, n: int, after: int, limit_bytes: int) -> list[Event]:
        place = after
        while segments := await self._ask(self._database.segments, n, place, limit_bytes):
            place = segments[-1].last
            try:
                events = _events_of(segments, after)
            except msgspec.MsgspecError as error:
                message = f"{id}: its stored events are damaged"
                raise HeadraceError(Code.STORE_FAILED, message) from error
            if events:
                return events
        return []

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[LogHeader]:
        found = {
            entry.n: entry.header
            for entry in self._entries.values()
            if entry.header.caller.tenant == tenant
            and session_id in (None, entry.header.caller.session_id)
        }
        rows = await self._ask(self._database.list, tenant, session_id, limit, self._clock())
        for row in rows:
            if row.n not in found:
                found[row.n] = row.kept().header
        return [found[n] for n in sorted(found, reverse=True)[:limit]]

    async def _ask(self, question: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Ask the database on its thread."""
        if self._stopped:
            raise _shutting_down()
        try:
            return await self._loop.run_in_executor(self._thread, lambda: question(*args, **kwargs))
        except sqlite3.Error as error:
            _logger.error("the store's database cannot be read: %s", error)
            raise HeadraceError(
                Code.STORE_FAILED,
                "The store cannot be read; the server's operator can find out why.",
            ) from error

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._thread.submit(self._database.enforce, self._clock())


def _shutting_down() -> HeadraceError:
    return HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down; read on later.")


def _events_of(segments: Sequence[Segment], after: int) -> list[Event]:
    events = [event for segment in segments for event in decode_events(segment.run, segment.events)]
    if events and events[0].seq <= after:
        events = [event for event in events if event.seq > after]
    return events
