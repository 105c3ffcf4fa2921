"""The SQLite side of the store: one file, one connection, used by one thread at a time.

A log that ran for longer than a commit is a row of ``generations`` and its events are ``segments``, one blob
per log per commit and never a row per event. ``raw`` holds private deltas of running logs. Rows of the same
log share the upper bits of their key (``n << 20``), so that one range holds them. A log that was over
before its first commit is in one of ``packs``; ``packed`` says in which. Rows are inserted many to a
statement: SQLite works without the interpreter's lock while a statement runs.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Collection, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.domain.event import End
from headrace.streams import repeats
from headrace.streams.bounds import Bounds, gone
from headrace.streams.inserting import insert
from headrace.streams.pack import Pack, Whole, packs, unpack
from headrace.streams.retention import Retention, first_key, rollback
from headrace.streams.store import KeptLog, LogHeader, Repeat

SCHEMA_VERSION = 3
BUSY_TIMEOUT_S = 5.0
PACKS_AT_HAND = 4
"""Packs that were read last and stay in memory, decoded."""
PAGE_BYTES = 32 * 1024
"""Of a new database. SQLite writes page by page, twice each, and most of what it writes are packs: a sixth of the
system calls that its usual 4 KiB would take, but six times the bytes for a commit of a single log."""
CHECKPOINT_BYTES = 16 << 20
"""SQLite's write-ahead log is moved into the database (and both are synced) when it has so much."""

_logger = logging.getLogger("headrace.streams")

_SCHEMA_1 = """
CREATE TABLE generations (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, session TEXT,
    frame INTEGER NOT NULL, last_seq INTEGER NOT NULL, end TEXT, ended_at REAL, left_at REAL,
    size INTEGER NOT NULL, segments INTEGER NOT NULL, raw_segments INTEGER NOT NULL,
    header BLOB NOT NULL);
CREATE INDEX by_tenant ON generations (tenant, n);
CREATE INDEX by_session ON generations (tenant, session, n) WHERE session IS NOT NULL;
CREATE INDEX unfinished ON generations (n) WHERE end IS NULL;
CREATE TABLE segments (
    key INTEGER PRIMARY KEY, last INTEGER NOT NULL, events INTEGER NOT NULL, run BLOB NOT NULL);
CREATE TABLE raw (key INTEGER PRIMARY KEY, deltas INTEGER NOT NULL, run BLOB NOT NULL);
CREATE TABLE tombstones (
    k INTEGER PRIMARY KEY, low TEXT NOT NULL, high TEXT NOT NULL, count INTEGER NOT NULL,
    ids TEXT NOT NULL);
CREATE TABLE totals (frame INTEGER, next_n INTEGER, finished INTEGER, bytes INTEGER);
INSERT INTO totals VALUES (0, 1, 0, 0);
"""
_SCHEMA_2 = """
CREATE TABLE packs (
    k INTEGER PRIMARY KEY, tenant TEXT NOT NULL, first_n INTEGER NOT NULL, last_n INTEGER NOT NULL,
    logs INTEGER NOT NULL, size INTEGER NOT NULL, ended_at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX packs_by_tenant ON packs (tenant, last_n);
CREATE INDEX packs_by_age ON packs (first_n);
CREATE TABLE packed (id TEXT PRIMARY KEY, k INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE packed_sessions (
    tenant TEXT NOT NULL, session TEXT NOT NULL, n INTEGER NOT NULL, k INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, n)) WITHOUT ROWID;
"""
_SCHEMA_3 = f"PRAGMA user_version = {SCHEMA_VERSION};"
"""The logs in packs have another form, which version 2 cannot read."""
_DELETED = "CREATE TABLE IF NOT EXISTS deleted (n INTEGER PRIMARY KEY)"
"""Numbers of logs that were deleted on request, until no journal file has them any more."""
_PASSING = """
CREATE TABLE IF NOT EXISTS passing (
    kind TEXT NOT NULL, key INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS passing_by_time ON passing (until);
"""
"""Logs (``n``) and packs (``k``) that are not kept for as long as others."""

_ID = attrgetter("id")
_SESSION = attrgetter("session")
_HEADER = msgspec.msgpack.Decoder(LogHeader)


class Row(NamedTuple):
    """A log as ``generations`` has it; field for column."""

    n: int
    id: str
    tenant: str
    session: str | None
    frame: int
    last_seq: int
    end: End | None
    ended_at: float | None
    left_at: float | None
    size: int
    segments: int
    raw_segments: int
    header: bytes

    def kept(self) -> KeptLog:
        return KeptLog(_HEADER.decode(self.header), self.last_seq, self.end)


class Segment(NamedTuple):
    """``events`` events, the newest with ``seq`` ``last``, as a run."""

    key: int
    last: int
    events: int
    run: bytes


class RawSegment(NamedTuple):
    """``deltas`` raw deltas as a run."""

    key: int
    deltas: int
    run: bytes


class Update(NamedTuple):
    """New values of a row that exists."""

    frame: int
    last_seq: int
    end: End | None
    ended_at: float | None
    left_at: float | None
    size: int
    segments: int
    raw_segments: int
    n: int


class Changes:
    """What one commit writes. ``passing``: numbers of logs in ``rows`` or ``updates``, and until when they are kept."""

    __slots__ = (
        "finished",
        "finished_bytes",
        "frame",
        "next_n",
        "passing",
        "raw",
        "raw_ended",
        "repeats",
        "rows",
        "segments",
        "updates",
        "wholes",
    )

    def __init__(self, frame: int, next_n: int) -> None:
        self.frame = frame
        self.next_n = next_n
        self.rows: list[Row] = []
        self.updates: list[Update] = []
        self.segments: list[Segment] = []
        self.raw: list[RawSegment] = []
        self.raw_ended: list[int] = []
        self.repeats: list[Repeat] = []
        self.wholes: Collection[Whole] = ()
        self.passing: list[tuple[int, float]] = []
        self.finished = 0
        self.finished_bytes = 0


class Database:
    """Raises ``sqlite3.Error`` wherever the file or the disk does."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        # What all tenants asked is in it, and in what SQLite puts beside it with the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        run = self._connection.execute
        run(f"PRAGMA page_size = {PAGE_BYTES}")  # one that exists keeps its own
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA temp_store = MEMORY")  # what undoes a single statement needs no file
        page_bytes = run("PRAGMA page_size").fetchone()[0]
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page_bytes}")
        run(f"PRAGMA journal_size_limit = {2 * CHECKPOINT_BYTES}")
        self._at_hand: dict[int, dict[str, Whole]] = {}
        self._create()
        totals = run("SELECT frame, next_n, finished, bytes FROM totals").fetchone()
        self.frame, self.next_n, finished, kept_bytes = totals
        self._retention = Retention(self._connection, bounds, finished, kept_bytes)

    def _create(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 <= version < SCHEMA_VERSION:
            missing = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)[version:]
            self._connection.executescript(f"BEGIN; {' '.join(missing)} COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(
                f"its schema has version {version}, this program knows {SCHEMA_VERSION}"
            )
        self._connection.execute(_DELETED)
        self._connection.executescript(repeats.TABLE)
        self._connection.executescript(_PASSING)

    def commit(self, changes: Changes, now: float) -> None:
        """Write everything or nothing, then drop what the bounds no longer allow."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._write(changes)
            repeats.write(self._connection, changes.repeats, now)
            self._connection.execute("COMMIT")
        except BaseException:
            rollback(self._connection)
            raise
        self.frame, self.next_n = changes.frame, changes.next_n
        self._retention.added(changes.finished, changes.finished_bytes)
        self.enforce(now)

    def enforce(self, now: float) -> None:
        """Drop what the bounds no longer allow; a failure is told and harms nothing else."""
        before = self._retention.finished
        try:
            self._retention.enforce(now)
        except sqlite3.Error as error:
            _logger.error("old generations cannot be dropped: %s", error)
        if self._retention.finished != before:
            self._at_hand.clear()  # a new pack may get the number of one that is gone

    def sync(self) -> None:
        """Everything committed is on the disk, in the database file itself. The write-ahead log begins again, but
        stays as large as it is: writing to pages that are in memory costs half."""
        self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def _write(self, changes: Changes) -> None:
        insert(self._connection, "generations", changes.rows)
        insert(self._connection, "segments", changes.segments)
        insert(self._connection, "raw", changes.raw)
        finished, finished_bytes = changes.finished, changes.finished_bytes
        wholes = changes.wholes
        if any(self.holds_packed(log.id) for log in islice(wholes, 1)):
            # A commit that SQLite had kept although it failed.
            wholes = [log for log in wholes if not self.holds_packed(log.id)]
        for pack, members in packs(wholes):
            self._insert_pack(pack, members)
            finished += pack.logs
            finished_bytes += pack.size
        changes.finished, changes.finished_bytes = finished, finished_bytes
        run = self._connection.executemany
        if changes.updates:
            run(
                "UPDATE generations SET frame = ?, last_seq = ?, end = ?, ended_at = ?, left_at = ?,"
                " size = ?, segments = ?, raw_segments = ? WHERE n = ?",
                changes.updates,
            )
        if changes.raw_ended:
            keys = [(first_key(n), first_key(n + 1)) for n in changes.raw_ended]
            run("DELETE FROM raw WHERE key >= ? AND key < ?", keys)
        passing = [("n", n, until) for n, until in changes.passing]
        insert(self._connection, "passing", passing)
        self._connection.execute(
            "UPDATE totals SET frame = ?, next_n = ?, finished = finished + ?, bytes = bytes + ?",
            (changes.frame, changes.next_n, changes.finished, changes.finished_bytes),
        )

    def _insert_pack(self, pack: Pack, members: Sequence[Whole]) -> None:
        run = self._connection.execute
        columns = "tenant, first_n, last_n, logs, size, ended_at, body"
        k = run(f"INSERT INTO packs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", pack).lastrowid
        ids = msgspec.json.encode([*map(_ID, members)]).decode()
        run("INSERT OR REPLACE INTO packed SELECT value, ? FROM json_each(?)", (k, ids))
        keep_s = members[0].keep_s
        if keep_s is not None:
            run("INSERT OR REPLACE INTO passing VALUES ('k', ?, ?)", (k, pack.ended_at + keep_s))
        if {*map(_SESSION, members)} != {None}:
            sessions = [
                (log.tenant, log.session, log.n, k) for log in members if log.session is not None
            ]
            insert(self._connection, "packed_sessions", sessions)

    def delete(self, id: str) -> None:
        """Forget an ended log, as if it had never been. Without effect where there is none."""
        run = self._connection.execute
        if (found := run("SELECT k FROM packed WHERE id = ?", (id,)).fetchone()) is not None:
            self._retention.forget_packed(found[0], id)
            self._at_hand.clear()
            return
        columns = "SELECT n, size FROM generations WHERE id = ? AND end IS NOT NULL"
        if (row := run(columns, (id,)).fetchone()) is not None:
            self._retention.forget_row(row[0], id, row[1])

    # Reading.

    def whole(self, id: str, now: float) -> Whole | None:
        """A log that is in a pack. Raises ``CURSOR_GONE`` for one that is too old."""
        self.enforce(now)
        found = self._connection.execute("SELECT k FROM packed WHERE id = ?", (id,)).fetchone()
        if found is None:
            return None
        log = self._unpacked(found[0])[id]
        if self._retention.too_old(log.ended_at, now):
            raise gone(id)
        return log

    def _unpacked(self, k: int) -> dict[str, Whole]:
        """The logs of a pack; those of the last few stay at hand: whoever reads one often reads its neighbours."""
        logs = self._at_hand.pop(k, None)
        if logs is None:
            body = self._connection.execute("SELECT body FROM packs WHERE k = ?", (k,)).fetchone()
            logs = {log.id: log for log in unpack(body[0])}
        self._at_hand[k] = logs
        if len(self._at_hand) > PACKS_AT_HAND:
            del self._at_hand[next(iter(self._at_hand))]
        return logs

    def holds_packed(self, id: str) -> bool:
        """Whether this log is in a pack."""
        found = self._connection.execute("SELECT 1 FROM packed WHERE id = ?", (id,))
        return found.fetchone() is not None

    def row(self, id: str, now: float) -> Row | None:
        """A kept log; None: never seen. Raises ``CURSOR_GONE`` for one that was dropped."""
        self.enforce(now)
        found = self._connection.execute("SELECT * FROM generations WHERE id = ?", (id,)).fetchone()
        if found is not None:
            row = Row(*found)
            if self._retention.too_old(row.ended_at, now):
                raise gone(id)
            return row
        if self._retention.buried(id):
            raise gone(id)
        return None

    def repeat(self, tenant: str, key: str, now: float) -> Repeat | None:
        """Which generation a key names."""
        return repeats.read(self._connection, tenant, key, now)

    def gone(self, n: int, id: str) -> bool:
        """Whether this log was dropped or deleted."""
        found = self._connection.execute("SELECT 1 FROM deleted WHERE n = ?", (n,)).fetchone()
        return found is not None or self._retention.buried(id)

    def forget_deleted(self) -> None:
        """No journal has anything of what was deleted."""
        self._connection.execute("DELETE FROM deleted")

    def row_of(self, n: int) -> Row | None:
        found = self._connection.execute("SELECT * FROM generations WHERE n = ?", (n,)).fetchone()
        return None if found is None else Row(*found)

    def unfinished(self) -> list[Row]:
        """Logs without a terminal event, oldest first."""
        rows = self._connection.execute("SELECT * FROM generations WHERE end IS NULL ORDER BY n")
        return [Row(*row) for row in rows]

    def segments(self, n: int, after: int, limit_bytes: int) -> list[Segment]:
        """Segments with events after ``after``, about ``limit_bytes`` of them and at least one."""
        rows = self._connection.execute(
            "SELECT * FROM segments WHERE key >= ? AND key < ? AND last > ? ORDER BY key",
            (first_key(n), first_key(n + 1), after),
        )
        found: list[Segment] = []
        for row in rows:
            found.append(Segment(*row))
            limit_bytes -= len(found[-1].run)
            if limit_bytes <= 0:
                break
        rows.close()
        return found

    def raw_segments(self, n: int) -> list[RawSegment]:
        rows = self._connection.execute(
            "SELECT * FROM raw WHERE key >= ? AND key < ? ORDER BY key",
            (first_key(n), first_key(n + 1)),
        )
        return [RawSegment(*row) for row in rows]

    def newest(
        self, tenant: str, session: str | None, limit: int, now: float
    ) -> list[tuple[int, LogHeader]]:
        """A tenant's logs, newest first, each with its number."""
        self.enforce(now)
        of_session = "" if session is None else "AND session = ?"
        values = (tenant, limit) if session is None else (tenant, session, limit)
        rows = self._connection.execute(
            f"SELECT * FROM generations WHERE tenant = ? {of_session} ORDER BY n DESC LIMIT ?",
            values,
        )
        found = dict(self._packed(tenant, session, limit))
        for row in map(Row._make, rows):
            found[row.n] = row.kept().header
        return [(n, found[n]) for n in sorted(found, reverse=True)[:limit]]

    def _packed(self, tenant: str, session: str | None, limit: int) -> list[tuple[int, LogHeader]]:
        """The newest logs of a tenant that are in packs, at least ``limit`` if there are so many."""
        if session is None:
            rows = self._connection.execute(
                "SELECT last_n, body FROM packs WHERE tenant = ? ORDER BY last_n DESC", (tenant,)
            )
        else:
            rows = self._connection.execute(
                "SELECT max(last_n), body FROM packs JOIN packed_sessions AS s USING (k)"
                " WHERE s.tenant = ? AND s.session = ? GROUP BY k ORDER BY max(last_n) DESC",
                (tenant, session),
            )
        newest: list[Whole] = []
        for last_n, body in rows:
            if len(newest) >= limit and newest[limit - 1].n > last_n:
                break  # nothing newer can follow
            try:
                newest += [log for log in unpack(body) if session in (None, log.session)]
            except msgspec.MsgspecError as error:
                _logger.error("a pack of generations is damaged and left out: %s", error)
            newest.sort(key=lambda log: log.n, reverse=True)
            del newest[limit:]
        rows.close()
        return [(log.n, log.kept().header) for log in newest]
