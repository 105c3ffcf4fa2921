"""Dropping finished generations from the SQLite file: whole, oldest first, never a running one.

Their age counts from their end, but they go in the order in which they began: one that outlived its
bound behind a longer-running neighbour goes a little later. The ids of dropped ones are remembered as
*tombstones*, many to a row, up to ``TOMBSTONES``.
"""

from __future__ import annotations

import sqlite3
from itertools import pairwise

from headrace.streams.bounds import TOMBSTONES, Bounds

DROPS_AT_ONCE = 1000
"""Generations dropped in one transaction, so that a commit behind it waits little."""
TOMBSTONES_A_ROW = 1000
ORDINAL_BITS = 20
"""Rows of one log share the upper bits of their key; so many bits number its segments."""
SPARE_PAGES = 2048
"""Free pages (8 MB) that stay in the file for reuse; more are given back to the disk."""
GIVEN_BACK_PAGES = 8192
"""At most so many at once (32 MB), so that a commit behind it waits little."""


class Retention:
    """Holds the bounds. ``finished`` and ``bytes``: the finished generations in the file now."""

    def __init__(
        self, connection: sqlite3.Connection, bounds: Bounds, finished: int, kept_bytes: int
    ) -> None:
        self._connection = connection
        self._bounds = bounds
        self.finished = finished
        self.bytes = kept_bytes

    def added(self, finished: int, kept_bytes: int) -> None:
        """Generations that finished."""
        self.finished += finished
        self.bytes += kept_bytes

    def enforce(self, now: float) -> bool:
        """Drop what the bounds no longer allow, at most ``DROPS_AT_ONCE``. Whether there may be more to drop.

        Count and bytes may be exceeded by 1 % before anything happens: dropping many at once is cheaper."""
        bounds = self._bounds
        over = (
            self.finished > bounds.keep_generations + bounds.keep_generations // 100
            or self.bytes > bounds.keep_bytes + bounds.keep_bytes // 100
        )
        doomed = self._doomed(now, over)
        if doomed:
            self._drop(doomed)
        return len(doomed) == DROPS_AT_ONCE

    def _doomed(self, now: float, over: bool) -> list[tuple[int, str, int]]:
        bounds = self._bounds
        horizon = now - bounds.keep_s
        too_many = self.finished - bounds.keep_generations if over else 0
        too_big = self.bytes - bounds.keep_bytes if over else 0
        doomed: list[tuple[int, str, int]] = []
        rows = self._connection.execute(
            "SELECT n, id, size, ended_at FROM generations WHERE end IS NOT NULL ORDER BY n LIMIT ?",
            (DROPS_AT_ONCE,),
        )
        for n, id, size, ended_at in rows:
            if too_many <= 0 and too_big <= 0 and ended_at >= horizon:
                break
            doomed.append((n, id, size))
            too_many -= 1
            too_big -= size
        rows.close()
        return doomed

    def _drop(self, doomed: list[tuple[int, str, int]]) -> None:
        run, many = self._connection.execute, self._connection.executemany
        low, high = doomed[0][0], doomed[-1][0]
        run("BEGIN IMMEDIATE")
        try:
            many("DELETE FROM segments WHERE key >= ? AND key < ?", self._spans(low, high))
            run("DELETE FROM generations WHERE n BETWEEN ? AND ? AND end IS NOT NULL", (low, high))
            self._bury(sorted(id for _, id, _ in doomed))
            size = sum(size for _, _, size in doomed)
            run("UPDATE totals SET finished = finished - ?, bytes = bytes - ?", (len(doomed), size))
            run("COMMIT")
        except BaseException:
            rollback(self._connection)
            raise
        self.finished -= len(doomed)
        self.bytes -= size
        self._shrink()

    def _spans(self, low: int, high: int) -> list[tuple[int, int]]:
        """Ranges of keys from log ``low`` to log ``high`` that leave the running ones out."""
        running = self._connection.execute(
            "SELECT n FROM generations WHERE end IS NULL AND n BETWEEN ? AND ?", (low, high)
        )
        edges = [low - 1, *sorted(n for (n,) in running), high + 1]
        return [(first_key(a + 1), first_key(b)) for a, b in pairwise(edges)]

    def _bury(self, ids: list[str]) -> None:
        """Remember these ids (sorted) in the newest row that has room, or in a new one."""
        run = self._connection.execute
        newest = run("SELECT k, count, ids FROM tombstones ORDER BY k DESC LIMIT 1").fetchone()
        if newest is not None and newest[1] + len(ids) <= TOMBSTONES_A_ROW:
            run("DELETE FROM tombstones WHERE k = ?", newest[:1])
            ids = sorted([*ids, *newest[2].split("\n")])
        run(
            "INSERT INTO tombstones (low, high, count, ids) VALUES (?, ?, ?, ?)",
            (ids[0], ids[-1], len(ids), "\n".join(ids)),
        )
        run(
            "DELETE FROM tombstones WHERE k <= (SELECT k FROM tombstones ORDER BY k DESC LIMIT 1 OFFSET ?)",
            (TOMBSTONES // TOMBSTONES_A_ROW * 2,),
        )

    def buried(self, id: str) -> bool:
        """Whether this log was dropped."""
        rows = self._connection.execute(
            "SELECT ids FROM tombstones WHERE low <= ? AND high >= ?", (id, id)
        )
        return any(id in ids.split("\n") for (ids,) in rows)

    def too_old(self, ended_at: float | None, now: float) -> bool:
        """Whether a log that ended then must not be read any more, dropped or not yet."""
        return ended_at is not None and ended_at < now - self._bounds.keep_s

    def _shrink(self) -> None:
        spare = self._connection.execute("PRAGMA freelist_count").fetchone()[0] - SPARE_PAGES
        if spare > 0:
            # Not execute(): that takes a single step, which gives back a single page.
            pages = min(spare, GIVEN_BACK_PAGES)
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def rollback(connection: sqlite3.Connection) -> None:
    """End a transaction that failed; SQLite may have ended it already."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def first_key(n: int) -> int:
    """The smallest key of log ``n`` in ``segments`` and ``raw``."""
    return n << ORDINAL_BITS
