"""``jobs.db``: which files and jobs there are, in one SQLite file of the state folder.

Blocking; any thread may call, one at a time gets in. Every change has reached the disk when its call returns.
What is in the files is beside it: ``contents.py``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import OVER, Job, StoredFile

SCHEMA_VERSION = 1
_SCHEMA = (
    """CREATE TABLE files (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
        expires_at REAL, record BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX files_by_tenant ON files (tenant, id)",
    "CREATE INDEX files_by_end ON files (expires_at) WHERE expires_at IS NOT NULL",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, over INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX jobs_by_tenant ON jobs (tenant, id)",
    "CREATE INDEX jobs_that_run ON jobs (id) WHERE NOT over",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_encode = msgspec.msgpack.Encoder().encode
_file = msgspec.msgpack.Decoder(StoredFile).decode
_job = msgspec.msgpack.Decoder(Job).decode


class Stock(NamedTuple):
    """What a tenant has."""

    files: int
    bytes: int


class Database:
    """Ids begin with the same letters and then sort by time. Whatever is wrong with the file is ``STORE_FAILED``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or create it."""
        with self._known_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self._path)

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def put_job(self, job: Job, left: Sequence[StoredFile] = ()) -> None:
        """Keep a job as it is now and, in the same transaction, the files that it left."""
        row = (job.id, job.order.tenant, job.state in OVER, _encode(job))
        with self._changing() as connection:
            connection.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)", row)
            for file in left:
                _put_file(connection, file)

    def job(self, id: str) -> Job | None:
        rows = self._rows("SELECT record FROM jobs WHERE id = ?", id)
        return _job(rows[0][0]) if rows else None

    def unfinished(self) -> list[Job]:
        """All jobs that are not over, the oldest first."""
        rows = self._rows("SELECT record FROM jobs WHERE NOT over ORDER BY id")
        return [_job(record) for (record,) in rows]

    def jobs(self, tenant: str, after: str | None, limit: int) -> list[Job]:
        """A tenant's, newest first. ``after``: only those older than this one."""
        rows = self._rows(
            "SELECT record FROM jobs WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?",
            *(tenant, after or _LAST, limit),
        )
        return [_job(record) for (record,) in rows]

    def forget_jobs(self, tenant: str, keep: int) -> None:
        """Keep so many of a tenant's jobs that are over, the newest."""
        with self._changing() as connection:
            connection.execute(
                "DELETE FROM jobs WHERE id IN"
                " (SELECT id FROM jobs WHERE tenant = ? AND over ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (tenant, keep),
            )

    def put_file(self, file: StoredFile) -> None:
        with self._changing() as connection:
            _put_file(connection, file)

    def file(self, id: str) -> StoredFile | None:
        rows = self._rows("SELECT record FROM files WHERE id = ?", id)
        return _file(rows[0][0]) if rows else None

    def files(
        self,
        tenant: str,
        purpose: str | None,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
    ) -> list[StoredFile]:
        """A tenant's, of one purpose where one is named. ``after``: only those behind this one."""
        down = order == "desc"
        rows = self._rows(
            "SELECT record FROM files WHERE tenant = ?1 AND (?2 IS NULL OR purpose = ?2)"
            f" AND id {'<' if down else '>'} ?3 ORDER BY id {'DESC' if down else 'ASC'} LIMIT ?4",
            *(tenant, purpose, after or (_LAST if down else ""), limit),
        )
        return [_file(record) for (record,) in rows]

    def stock(self, tenant: str) -> Stock:
        query = "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE tenant = ?"
        return Stock(*self._rows(query, tenant)[0])

    def file_ids(self) -> set[str]:
        """Of all files."""
        return {id for (id,) in self._rows("SELECT id FROM files")}

    def expired_files(self, now: float, limit: int) -> list[StoredFile]:
        rows = self._rows(
            "SELECT record FROM files WHERE expires_at <= ? ORDER BY expires_at LIMIT ?", now, limit
        )
        return [_file(record) for (record,) in rows]

    def forget_file(self, id: str) -> None:
        with self._changing() as connection:
            connection.execute("DELETE FROM files WHERE id = ?", (id,))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._at_work() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._at_work() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _at_work(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._known_errors():
            if self._connection is None:
                raise HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down.")
            yield self._connection

    @contextmanager
    def _known_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = f"The jobs in {self._path} cannot be read or written: {error}."
            raise HeadraceError(Code.STORE_FAILED, said) from error


_LAST = "\U0010ffff"
"""Behind every id."""


def _put_file(connection: sqlite3.Connection, file: StoredFile) -> None:
    row = (file.id, file.tenant, file.purpose, file.bytes, file.expires_at, _encode(file))
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files get the same mode
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("COMMIT")
        elif version != SCHEMA_VERSION:
            said = f"its schema has version {version}, this program knows {SCHEMA_VERSION}"
            raise sqlite3.DatabaseError(said)
    except BaseException:
        connection.close()
        raise
    return connection
