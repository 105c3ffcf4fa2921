"""``SqliteStore``: logs that survive the process. A journal in front, SQLite behind.

What an append has put into the journal outlives the process: it may be shown. The journal is the truth.
SQLite is a checkpoint that follows later and gets only what it lacks: finished logs at the next commit
(those that had none before in packs), running ones when they have ``PIECE_BYTES`` or when the journal file
that holds them is full and has to go.

What waits for SQLite is in memory, too. Who has work that nobody waits for asks :meth:`SqliteStore.caught_up` before
each piece of it, so that of such work little more than one full journal file waits. When SQLite cannot keep up with
the rest, the event loop waits for it: slow, but bounded. When it fails, commits are
tried again; at ``BACKLOG_BYTES`` logs fail with ``STORE_FAILED``. A journal that has no room and gets no new
file fails the log that was appended to; the next append may succeed. Nothing is lost silently.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import End, Event
from headrace.streams.bounds import Bounds, Clock
from headrace.streams.checkpoint import BACKLOG_BYTES, Checkpointer
from headrace.streams.database import Database, Segment
from headrace.streams.encoded import decode_events, encode, encode_run
from headrace.streams.entry import KIND_OF, Entry
from headrace.streams.journal import FILE_BYTES, Journal, JournalFile, journal_files
from headrace.streams.pack import Whole
from headrace.streams.record import BEGINS, pack_head
from headrace.streams.recovery import Replay, unfinished
from headrace.streams.runs import PIECE_BYTES
from headrace.streams.store import KeptLog, LogHeader, LogWriter, Recovered, Repeat

SWEEP_S = 60.0
"""How often a store that commits nothing looks for logs that became too old."""

_logger = logging.getLogger("headrace.streams")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class SqliteStore:
    """Implements :class:`headrace.streams.store.Store`, and the ``Home`` of its entries. ``path``: the SQLite file;
    beside it lie the journal's files and a lock, so that one process at a time has it."""

    _loop: asyncio.AbstractEventLoop
    _database: Database
    journal: Journal
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
        self._journal_bytes = journal_bytes
        # Running logs, and those that ended later than they began and that SQLite lacks. Bounded by the
        # queues and BACKLOG_BYTES.
        self._entries: dict[str, Entry] = {}
        self._next_n = 1
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
            position=lambda: (self.journal.frame, self._next_n),
            saved=self._saved,
            freed=self.journal.adopt,
            clock=self._clock,
        )
        for entry, _ in found:
            self._entries[entry.header.id] = entry.settle(self)
        self._prepare()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return [recovered for _, recovered in found]

    def _open(self) -> list[tuple[Entry, Recovered]]:
        """On the thread: everything into SQLite, then a new journal."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        files = journal_files(self._path)
        self._database = Database(self._path, self._bounds)
        replay = Replay(self._database, self._clock())
        replay.play(files)
        replay.save()
        self._next_n = replay.next_n
        self.journal = Journal(
            self._path,
            replay.frame,
            make_room=self._make_room,
            prepare=self._prepare,
            file_bytes=self._journal_bytes,
        )
        self._database.sync()
        for file in files:
            file.unlink()
        self._database.forget_deleted()
        return unfinished(self._database)

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                "another process uses it; is a headrace running already? A second one needs a"
                " --state-dir of its own"
            ) from None

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def close(self) -> None:
        """All in SQLite, the journal gone. If SQLite fails, the journal stays for the next start."""
        if self._lock < 0:
            return
        self._stopped = True
        self.journal.close_for_writing()  # nothing may reach what is about to go
        self._queue_dirty()
        self._checkpointer.retire(self.journal.file)
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
        self.journal.close()
        self._thread.submit(self._database.close)
        await asyncio.to_thread(self._thread.shutdown)
        self._unlock()

    async def caught_up(self) -> None:
        await self._checkpointer.caught_up()
        if self._checkpointer.waiting_bytes and (failure := self._checkpointer.failure) is not None:
            raise HeadraceError(
                Code.STORE_FAILED,
                f"The store's database cannot be written: {failure}; the server's operator can find out why.",
            )

    @property
    def commits(self) -> int:
        """Commits of SQLite."""
        return self._checkpointer.commits

    @property
    def appends(self) -> int:
        """Records in the journal since there is this store."""
        return self.journal.frame

    # Writing.

    def begin(
        self, header: LogHeader, events: Sequence[Event], raw: Sequence[Delta], end: End | None
    ) -> LogWriter | None:
        n = self._next_n
        self._next_n = n + 1
        if end is not None:
            raw = ()  # nobody goes on from it
        count = len(events)
        beginning = encode((header, events, raw))
        try:
            self.journal.append(pack_head(KIND_OF[end] + BEGINS, n, count) + beginning)
        except OSError as error:
            raise self._cannot_store(header.id, error) from error
        if header.caller.once is not None:
            self._checkpointer.repeats.note(header)
        if end is None:
            return self._enter(n, header, events, raw)
        caller, checkpointer = header.caller, self._checkpointer
        if checkpointer.idle:
            checkpointer.wake()
        checkpointer.wholes[header.id] = Whole(
            n,
            header.id,
            caller.tenant,
            caller.session_id,
            end,
            checkpointer.now,
            count,
            count,
            b"",
            beginning,
            None if header.request.keep else header.keep_s,
        )
        return None

    def _enter(
        self, n: int, header: LogHeader, events: Sequence[Event], raw: Sequence[Delta]
    ) -> Entry:
        """A log that goes on behind what is in the journal."""
        entry = self._entries[header.id] = Entry(n, header, encode(header)).settle(self)
        entry.pending.add(events)
        if raw:
            entry.add_raw(len(raw), encode_run(raw))
        if entry.pending.size >= PIECE_BYTES:
            self.queue(entry)
        return entry

    def writer(self, id: str) -> LogWriter:
        return self._entries[id]

    def now(self) -> float:
        return self._clock()

    def queue(self, entry: Entry) -> None:
        self._checkpointer.queue(entry)

    def refused(self, entry: Entry, error: OSError) -> HeadraceError:
        entry.failed = True
        if entry.dirty:
            self.queue(entry)
        elif entry.flight is None:
            self._entries.pop(entry.header.id, None)
        return self._cannot_store(entry.header.id, error)

    def _cannot_store(self, id: str, error: OSError) -> HeadraceError:
        """This log ends here for its readers; the store goes on."""
        _logger.error("%s cannot be stored in %s: %s", id, self._path, error)
        return HeadraceError(
            Code.STORE_FAILED,
            f"The generation cannot be stored ({error.strerror or error}); the server's operator can "
            "make room on its disk.",
        )

    def _make_room(self, needed: int) -> None:
        """Go on in another journal file; the full one can be used again when SQLite has all of it. Raises
        ``OSError`` if there is none, or if too much waits for a SQLite that does not take it."""
        if self._stopped:
            raise _shutting_down()
        checkpointer = self._checkpointer
        if checkpointer.waiting_bytes >= BACKLOG_BYTES:
            if not checkpointer.failing:
                checkpointer.relieve()
            if checkpointer.failure is not None:
                raise OSError(f"its database cannot be written: {checkpointer.failure}")
        full = self.journal.file
        self.journal.rotate(needed)
        self._queue_dirty()
        checkpointer.retire(full)

    def _prepare(self) -> None:
        """Have the next journal file made on the thread."""
        self._thread.submit(self.journal.reserve()).add_done_callback(self._prepared)

    def _prepared(self, made: Future[JournalFile]) -> None:
        """On the thread."""
        if (error := made.exception()) is not None:
            _logger.error("the store cannot make its next journal file yet: %s", error)
            return
        try:
            self._loop.call_soon_threadsafe(self.journal.adopt, made.result())
        except RuntimeError:
            made.result().discard()

    def _queue_dirty(self) -> None:
        for entry in self._entries.values():
            if entry.dirty:
                self._checkpointer.queue(entry)

    def _saved(self, entry: Entry) -> None:
        if (entry.end is not None or entry.failed) and not entry.dirty:
            self._entries.pop(entry.header.id, None)

    async def delete(self, id: str) -> None:
        if id in self._entries or self._checkpointer.whole(id) is not None:
            await self.checkpoint()
            if (failure := self._checkpointer.failure) is not None:
                raise self._cannot_store(id, OSError(f"its database cannot be written: {failure}"))
        await self._ask(self._database.delete, id)

    # Reading.

    async def find(self, id: str) -> KeptLog | None:
        entry = self._entries.get(id)
        if entry is not None:
            return entry.kept()
        whole = await self._whole(id)
        if whole is not None:
            return whole.kept()
        row = await self._ask(self._database.row, id, self._clock())
        return None if row is None else row.kept()

    def recent(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        entry = self._entries.get(id)
        if entry is not None:
            return entry.newest(after, limit_bytes)
        whole = self._checkpointer.whole(id)
        return [] if whole is None else whole.after(after, limit_bytes)

    async def read(self, id: str, after: int, limit_bytes: int) -> list[Event]:
        if events := self.recent(id, after, limit_bytes):
            return events
        entry = self._entries.get(id)
        if entry is not None:
            n = entry.n
        elif (whole := await self._whole(id)) is not None:
            return _events_of_whole(whole, after, limit_bytes)
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
                raise _damaged(id) from error
            if events:
                return events
        return []

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[LogHeader]:
        running = {entry.n: entry.header for entry in self._entries.values()}
        running |= {whole.n: whole.kept().header for whole in self._checkpointer.all_wholes()}
        found = {n: one for n, one in running.items() if one.is_of(tenant, session_id)}
        rows = await self._ask(self._database.newest, tenant, session_id, limit, self._clock())
        found |= dict(rows)
        return [found[n] for n in sorted(found, reverse=True)[:limit]]

    async def repeat(self, tenant: str, key: str) -> Repeat | None:
        now = self._clock()
        found = self._checkpointer.repeats.find(tenant, key, now)
        return found or await self._ask(self._database.repeat, tenant, key, now)

    async def _whole(self, id: str) -> Whole | None:
        """A log that was over before it was committed."""
        whole = self._checkpointer.whole(id)
        return whole or await self._ask(self._database.whole, id, self._clock())

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
        except msgspec.MsgspecError as error:
            _logger.error("the store's database is damaged: %s", error)
            raise HeadraceError(
                Code.STORE_FAILED, "What is stored of this generation is damaged."
            ) from error

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._thread.submit(self._database.enforce, self._clock())


def _shutting_down() -> HeadraceError:
    return HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down; read on later.")


def _events_of_whole(whole: Whole, after: int, limit_bytes: int) -> list[Event]:
    try:
        return whole.after(after, limit_bytes)
    except msgspec.MsgspecError as error:
        raise _damaged(whole.id) from error


def _damaged(id: str) -> HeadraceError:
    return HeadraceError(Code.STORE_FAILED, f"{id}: its stored events are damaged")


def _events_of(segments: Sequence[Segment], after: int) -> list[Event]:
    events = [event for segment in segments for event in decode_events(segment.run, segment.events)]
    if events and events[0].seq <= after:
        events = [event for event in events if event.seq > after]
    return events
