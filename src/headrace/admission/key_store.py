"""``keys.db``: keys that were created, and terms of tenants and limits of models that were changed, in one SQLite file
of the state folder.

A server and ``headrace keys`` share it, whichever of them runs. It comes to be with the first thing that is kept.
Blocking; any thread may call, one at a time gets in. Every change has reached the disk when its call returns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import Limits
from headrace.domain.principal import Scope
from headrace.domain.tenant import Tenant

MAX_KEYS = 10_000
"""Keys that are kept. Before there are more, those go that were revoked or expired, the oldest first."""
MAX_TENANTS = 10_000
BUSY_TIMEOUT_S = 5.0
SCHEMA_VERSION = 1
_SCHEMA = (
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, scopes TEXT NOT NULL,
        name TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL,
        limits TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE tenants (name TEXT PRIMARY KEY, terms BLOB NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_MODELS = (
    "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, limits BLOB NOT NULL) WITHOUT ROWID"
)
"""It comes to be with the first limits that are kept: files of programs that do not know it are read as they are."""
_LIMITS_AT = b'"model_limits":'
_COLUMNS = "id, tenant, scopes, name, created_at, expires_at, revoked_at, limits"
_SPENT = "revoked_at IS NOT NULL OR expires_at <= ?"


class Stored(NamedTuple):
    """All that is kept. ``keys``: by their SHA-256, the newest first. ``models``: by their own names. ``untold``:
    tenants whose terms are from a program that did not know of limits at models."""

    keys: dict[bytes, Key]
    tenants: tuple[Tenant, ...]
    models: Mapping[str, Limits] = {}
    untold: Collection[str] = ()


class KeyStore:
    """Whatever is wrong with the file is ``STORE_FAILED``."""

    def __init__(
        self, path: Path, *, max_keys: int = MAX_KEYS, max_tenants: int = MAX_TENANTS
    ) -> None:
        self._path = path
        self._max_keys = max_keys
        self._max_tenants = max_tenants
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version: int | None = None
        """SQLite's number of what :meth:`load` gave; None: that is not all any more."""

    def load(self) -> Stored:
        with self._at_work("read") as connection:
            if connection is None:
                return Stored({}, ())
            run = connection.execute
            version = _data_version(connection)  # before: what comes in between is another change
            rows = run(f"SELECT sha256, {_COLUMNS} FROM keys ORDER BY created_at DESC, id")
            keys = {row[0]: _key(*row[1:]) for row in rows}
            tenants = dict(run("SELECT name, terms FROM tenants ORDER BY name"))
            terms = tuple([_decode(one) for one in tenants.values()])
            untold = tuple([name for name, one in tenants.items() if _LIMITS_AT not in one])
            models = dict(run("SELECT name, limits FROM models")) if _has_models(connection) else {}
            limits = {name: _decode_limits(one) for name, one in models.items()}
            stored = Stored(keys, terms, limits, untold)
            self._version = version
            return stored

    def changed(self) -> bool:
        """Whether :meth:`load` would give something else than the last time. A file that is gone changes nothing:
        who deletes it must not open a server with that."""
        with self._at_work("read") as connection:
            return connection is not None and self._version != _data_version(connection)

    def add(self, sha: bytes, key: Key) -> None:
        """Keep a new key. Raises ``CONFLICT`` if there are too many good ones."""
        scopes = ",".join(key.scopes)
        limits = msgspec.json.encode(key.limits).decode()
        times = (key.created_at, key.expires_at, None)
        row = (key.id, sha, key.tenant, scopes, key.name, *times, limits)
        with self._changing() as connection:
            self._make_room(connection, key.created_at or 0.0)
            connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def revoke(self, id: str, now: float) -> Key | None:
        """The key, which is good for nothing from now on; None if there is none."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, id)
            )
            row = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (id,)).fetchone()
        return None if row is None else _key(*row)

    def put(self, tenant: Tenant) -> None:
        """Keep a tenant's terms. Raises ``CONFLICT`` if there are too many."""
        with self._changing() as connection:
            run = connection.execute
            run("INSERT OR REPLACE INTO tenants VALUES (?, ?)", (tenant.name, _encode(tenant)))
            if run("SELECT count(*) FROM tenants").fetchone()[0] > self._max_tenants:
                raise HeadraceError(
                    Code.CONFLICT, f"There are {self._max_tenants} tenants already; delete one."
                )

    def forget(self, name: str) -> bool:
        """Whether terms of this tenant were kept; they are not any more."""
        with self._changing() as connection:
            found = connection.execute("DELETE FROM tenants WHERE name = ?", (name,))
        return found.rowcount > 0

    def limit(self, model: str, limits: Limits) -> None:
        """Keep a model's limits. There are not more than there were models."""
        with self._changing() as connection:
            connection.execute(_MODELS)
            row = (model, _encode(limits))
            connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", row)

    def forget_limits(self, model: str) -> bool:
        """Whether limits of this model were kept; they are not any more."""
        with self._changing() as connection:
            if not _has_models(connection):
                return False
            found = connection.execute("DELETE FROM models WHERE name = ?", (model,))
        return found.rowcount > 0

    def close(self) -> None:
        """Idempotent; whoever comes back opens it again."""
        with self._lock:
            self._disconnect()

    def _make_room(self, connection: sqlite3.Connection, now: float) -> None:
        (count,) = connection.execute("SELECT count(*) FROM keys").fetchone()
        most = self._max_keys
        if count < most:
            return
        gone = connection.execute(
            "DELETE FROM keys WHERE id IN"
            f" (SELECT id FROM keys WHERE {_SPENT} ORDER BY created_at LIMIT ?)",
            (now, count - most + 1),
        )
        if count - gone.rowcount >= most:
            raise HeadraceError(Code.CONFLICT, f"There are {most} keys already; revoke one.")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Its changes are not among what :meth:`load` gave."""
        with self._at_work("written", make=True) as connection:
            assert connection is not None
            self._version = None
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _at_work(self, what: str, *, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """The connection, None where there is no file; with the known errors in words."""
        with self._lock:
            try:
                yield self._connected(make)
            except (sqlite3.Error, OSError, ValueError) as error:
                said = f"The keys in {self._path} cannot be {what}: {error}."
                raise HeadraceError(Code.STORE_FAILED, said) from error

    def _connected(self, make: bool) -> sqlite3.Connection | None:
        file = self._stat()
        if file is None and make:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
            file = self._stat()
        if file is not None and file != self._file:
            self._disconnect()  # it was replaced, as a restored backup does
            self._connection = _connect(self._path)
            self._file = file
        return self._connection

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = self._version = None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if _schema_version(connection) == 0:
            _create(connection)
        if (version := _schema_version(connection)) != SCHEMA_VERSION:
            said = f"its schema has version {version}, this program knows {SCHEMA_VERSION}"
            raise sqlite3.DatabaseError(said)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if _schema_version(connection) == 0:  # else another program was quicker
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _has_models(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'models'")
    return found.fetchone() is not None


def _schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _data_version(connection: sqlite3.Connection) -> int:
    """Another number as soon as another connection has changed something."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _key(
    id: str,
    tenant: str,
    scopes: str,
    name: str,
    created_at: float,
    expires_at: float | None,
    revoked_at: float | None,
    limits: str,
) -> Key:
    known = msgspec.convert(scopes.split(","), tuple[Scope, ...])
    allowed = msgspec.json.decode(limits, type=Limits)
    return Key(id, tenant, known, name, created_at, expires_at, revoked_at, allowed)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Tenant).decode
_decode_limits = msgspec.json.Decoder(Limits).decode
