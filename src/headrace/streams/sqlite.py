"""``SqliteStore``: logs that survive the process. A journal in front, SQLite behind.

What ``append`` has put into the journal outlives the process: it may be shown. The journal is the truth.
SQLite is a checkpoint that follows later and gets only what it lacks: finished logs at the next commit
(those that had none before in packs), running ones when they have ``SEGMENT_BYTES`` or when the journal file
that holds them is full and has to go.

When SQLite cannot keep up, the event loop waits for it: slow, but bounded. When it fails, commits are
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
from typing import Any, ParamSpec, TypeVar

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Event, Finish
from headrace.streams.bounds import Bounds, Clock
from headrace.streams.checkpoint import BACKLOG_BYTES, Checkpointer
from headrace.streams.database import Database, Segment
from headrace.streams.encoded import decode_events, encode_run
from headrace.streams.entry import END_OF, SEGMENT_BYTES, Entry
from headrace.streams.journal import FILE_BYTES, Journal, Spare, journal_files
from headrace.streams.pack import Whole
from headrace.streams.record import APPEND, ERROR, FINISH, HEAD_BYTES, LEFT, left_run, pack_head
from headrace.streams.recovery import Replay, unfinished
from headrace.streams.store import Appended, KeptLog, LogHeader, Recovered

SWEEP_S = 60.0
"""How often a store that commits nothing looks for logs that became too old."""

_logger = logging.getLogger("headrace.streams")
_P = ParamSpec("_P")
_T = TypeVar("_T")
_NOBODY = object()
"""In the place of a time: nobody left."""
_KINDS: dict[type[Event], int] = {Finish: FINISH, Error: ERROR}
_encode = msgspec.msgpack.Encoder().encode


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
        self._journal_bytes = journal_bytes
        # Logs without an event so far, and when the last client of one of these left. Bounded by the queues.
        self._new: dict[str, LogHeader] = {}
        self._left_early: dict[str, Any] = {}
        # Running logs, and ended ones that SQLite lacks. Bounded by the queues and BACKLOG_BYTES.
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
            position=lambda: (self._journal.frame, self._next_n),
            saved=self._saved,
            clock=self._clock,
        )
        for entry, _ in found:
            self._entries[entry.header.id] = entry
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
        self._journal = Journal(self._path, replay.frame, self._journal_bytes)
        self._database.sync()
        for file in files:
            file.unlink()
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
        self._journal.close_for_writing()  # nothing may reach what is about to go
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
        self._journal.close()
        self._thread.submit(self._database.close)
        await asyncio.to_thread(self._thread.shutdown)
        self._unlock()

    @property
    def commits(self) -> int:
        """Commits of SQLite."""
        return self._checkpointer.commits

    @property
    def appends(self) -> int:
        """Records in the journal since there is this store."""
        return self._journal.frame

    # Writing.

    def begin(self, log: Appended, header: LogHeader) -> None:
        self._new[header.id] = header

    def append(self, log: Appended, events: Sequence[Event], raw: Sequence[Delta]) -> None:
        entry = self._entries.get(log.id)
        kind, run, raw_run = APPEND, b"", b""
        if events:
            kind = _KINDS.get(type(events[-1]), APPEND)
            run = encode_run(events)
        if raw:
            raw_run = encode_run(raw)
        if entry is None:
            self._begin(log.id, kind, len(events), run, len(raw), raw_run)
            return
        if entry.failed:
            raise _cannot_be_stored(log.id)
        count, raw_count = len(events), len(raw)
        self._write(entry, entry.n, kind, entry.seq + 1, count, b"", run, raw_count, raw_run)
        entry.took(count, run, raw_count, raw_run)
        self._checkpointer.held_bytes += len(run)
        if kind != APPEND:
            entry.ended(kind, self._clock())
            self._checkpointer.queue(entry)
        elif entry.pending.size >= SEGMENT_BYTES:
            self._checkpointer.queue(entry)

    def _begin(
        self, id: str, kind: int, count: int, run: bytes, raw_count: int, raw_run: bytes
    ) -> None:
        """The first events of a log; often all there are."""
        header = self._new.pop(id, None)
        left_at = self._left_early.pop(id, _NOBODY)
        if header is None:
            raise _cannot_be_stored(id)  # it failed before
        n, encoded = self._next_n, _encode(header)
        self._next_n = n + 1
        self._write(header, n, kind, 1, count, encoded, run, raw_count, raw_run)
        if kind != APPEND:
            caller = header.caller
            self._checkpointer.add(
                Whole(
                    n,
                    id,
                    caller.tenant,
                    caller.session_id,
                    END_OF[kind],
                    self._clock(),
                    count,
                    count,
                    encoded,
                    run,
                )
            )
            return
        entry = self._entries[id] = Entry(n, header, encoded)
        entry.took(count, run, raw_count, raw_run)
        self._checkpointer.held_bytes += len(run)
        if left_at is not _NOBODY:
            self._note_left(entry, left_at)
        if entry.pending.size >= SEGMENT_BYTES:
            self._checkpointer.queue(entry)

    def left(self, log: Appended, left_at: float | None) -> None:
        if self._stopped:
            return
        entry = self._entries.get(log.id)
        if entry is not None and not entry.failed:
            self._note_left(entry, left_at)
        elif log.id in self._new:
            self._left_early[log.id] = left_at  # written with its beginning

    def _note_left(self, entry: Entry, left_at: float | None) -> None:
        try:
            self._write(entry, entry.n, LEFT, entry.seq, 0, b"", left_run(left_at), 0, b"")
        except HeadraceError:
            return  # it was logged; the log's next event fails too
        entry.dirty = True
        entry.left_at = left_at

    def _write(
        self,
        of: Entry | LogHeader,
        n: int,
        kind: int,
        first: int,
        count: int,
        header: bytes,
        run: bytes,
        raw_count: int,
        raw: bytes,
    ) -> None:
        """Into the journal. Raises ``STORE_FAILED`` if it or SQLite, much too late, takes no more."""
        journal = self._journal
        frame = journal.frame + 1
        body = pack_head(frame, kind, n, first, count, len(header), len(run), raw_count) + run
        if header or raw:
            body = b"".join((body[:HEAD_BYTES], header, run, raw))
        if self._checkpointer.held_bytes >= BACKLOG_BYTES or not journal.append(body):
            self._write_late(of, body)
        journal.frame = frame

    def _write_late(self, of: Entry | LogHeader, body: bytes) -> None:
        """Where there is no room: behind what is too much, or in a new file."""
        if self._stopped:
            raise _shutting_down()
        try:
            if self._checkpointer.held_bytes >= BACKLOG_BYTES:
                self._check_backlog()
            if not self._journal.append(body):
                self._rotate(len(body))
                self._journal.append(body)
        except OSError as error:
            raise self._failed(of, error) from error

    def _rotate(self, needed: int) -> None:
        """Go on in a new journal file; the full one goes when SQLite has all of it."""
        full = self._journal.file
        self._journal.rotate(needed)
        self._queue_dirty()
        self._checkpointer.retire(full)
        self._prepare()

    def _prepare(self) -> None:
        """Have the next journal file made on the thread."""
        self._thread.submit(self._journal.reserve()).add_done_callback(self._prepared)

    def _prepared(self, made: Future[Spare]) -> None:
        """On the thread."""
        if (error := made.exception()) is not None:
            _logger.error("the store cannot make its next journal file yet: %s", error)
            return
        try:
            self._loop.call_soon_threadsafe(self._journal.adopt, made.result())
        except RuntimeError:
            made.result().discard()

    def _queue_dirty(self) -> None:
        for entry in self._entries.values():
            if entry.dirty:
                self._checkpointer.queue(entry)

    def _check_backlog(self) -> None:
        """Raises ``OSError`` if too much waits for a SQLite that does not take it."""
        checkpointer = self._checkpointer
        self._queue_dirty()
        checkpointer.relieve()
        if checkpointer.failure is not None:
            raise OSError(f"its database cannot be written: {checkpointer.failure}")

    def _failed(self, of: Entry | LogHeader, error: OSError) -> HeadraceError:
        """This log ends here for its readers; the store goes on."""
        id = of.header.id if isinstance(of, Entry) else of.id
        _logger.error("%s cannot be stored in %s: %s", id, self._path, error)
        if isinstance(of, Entry):
            of.failed = True
            if of.dirty:
                self._checkpointer.queue(of)
            elif of.flight is None:
                self._entries.pop(id, None)
        return HeadraceError(
            Code.STORE_FAILED,
            f"The generation cannot be stored ({error.strerror or error}); the server's operator can "
            "make room on its disk.",
        )

    def _saved(self, entry: Entry) -> None:
        if (entry.end is not None or entry.failed) and not entry.dirty:
            self._entries.pop(entry.header.id, None)

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
        asked = [header for header in self._new.values() if _is_of(header, tenant, session_id)]
        running = {entry.n: entry.header for entry in self._entries.values()}
        running |= {whole.n: whole.kept().header for whole in self._checkpointer.wholes()}
        found = {n: one for n, one in running.items() if _is_of(one, tenant, session_id)}
        rows = await self._ask(self._database.newest, tenant, session_id, limit, self._clock())
        found |= dict(rows)
        newest = [found[n] for n in sorted(found, reverse=True)]
        return [*reversed(asked), *newest][:limit]

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


def _cannot_be_stored(id: str) -> HeadraceError:
    return HeadraceError(Code.STORE_FAILED, f"{id} could not be stored before; it has ended.")


def _is_of(header: LogHeader, tenant: str, session_id: str | None) -> bool:
    caller = header.caller
    return caller.tenant == tenant and session_id in (None, caller.session_id)


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
