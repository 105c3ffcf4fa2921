"""Which generation a client's idempotency key names: in SQLite for a day, before that in memory.

A key is noted when its log begins, and committed no later than that log: what the journal plays back after a
crash it notes again.
"""

from __future__ import annotations

import sqlite3

from headrace.streams.inserting import insert
from headrace.streams.store import LogHeader, Repeat

KEEP_S = 86_400.0
"""How long a key is known."""

TABLE = """
CREATE TABLE IF NOT EXISTS repeats (
    tenant TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (tenant, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS repeats_by_age ON repeats (at);
"""


class Repeats:
    """Those that SQLite may lack, by tenant and key. Bounded by the commits."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], Repeat] = {}
        self._under_way: dict[tuple[str, str], Repeat] = {}

    def note(self, header: LogHeader) -> None:
        """A log with a key begins."""
        caller = header.caller
        assert caller.once is not None
        key = caller.tenant, caller.once.key
        self._noted[key] = Repeat(*key, header.id, header.created)

    def find(self, tenant: str, key: str, now: float) -> Repeat | None:
        found = self._noted.get((tenant, key)) or self._under_way.get((tenant, key))
        return found if found is not None and found.at >= now - KEEP_S else None

    def take(self) -> list[Repeat]:
        """For a commit that begins."""
        self._under_way, self._noted = self._noted, {}
        return list(self._under_way.values())

    def saved(self) -> None:
        """That commit is done."""
        self._under_way = {}

    def taken_back(self) -> None:
        """That commit failed."""
        self._noted = self._under_way | self._noted
        self._under_way = {}


def write(connection: sqlite3.Connection, repeats: list[Repeat], now: float) -> None:
    """Add these and drop what is too old."""
    if repeats:
        insert(connection, "repeats", repeats)
        connection.execute("DELETE FROM repeats WHERE at < ?", (now - KEEP_S,))


def read(connection: sqlite3.Connection, tenant: str, key: str, now: float) -> Repeat | None:
    """What is committed and not too old."""
    row = connection.execute(
        "SELECT * FROM repeats WHERE tenant = ? AND key = ? AND at >= ?",
        (tenant, key, now - KEEP_S),
    ).fetchone()
    return None if row is None else Repeat(*row)
