"""Rows of SQLite, many to a statement.

``executemany`` gives the interpreter's lock back and waits for it again with every row: beside a busy event loop that
is most of what a commit of small rows takes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

ROWS_A_STATEMENT = 50


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows with all columns of ``table``. Replacing: a commit that failed is tried again, even if SQLite had kept it
    after all."""
    for start in range(0, len(rows), ROWS_A_STATEMENT):
        part = rows[start : start + ROWS_A_STATEMENT]
        row = f"({','.join('?' * len(part[0]))})"
        values = ",".join([row] * len(part))
        flat = [value for one in part for value in one]
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES {values}", flat)
