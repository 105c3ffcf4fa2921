"""Dropping finished generations from the SQLite file: whole, oldest first, never a running one.

Their age counts from their end, but they go in the order in which they began: one that outlived its
bound behind a longer-running neighbour goes a little later. Those that were only to be kept for a while go
then, each (or its pack) at its own time. The ids of dropped ones are remembered as
*tombstones*, many to a row, up to ``TOMBSTONES``.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator, Sequence
from heapq import merge
from typing import Literal, NamedTuple

import msgspec

from headrace.streams.bounds import TOMBSTONES, Bounds
from headrace.streams.pack import Whole, packed, unpack

DROPS_AT_ONCE = 1000
"""Generations dropped in one transaction, so that a commit behind it waits little."""
TOMBSTONES_A_ROW = 1000
ORDINAL_BITS = 20
"""Rows of one log share the upper bits of their key; so many bits number its segments."""
SPARE_BYTES = 8 << 20
"""Free pages that stay in the file for reuse; more are given back to the disk."""
GIVEN_BACK_BYTES = 32 << 20
"""At most so much at once, so that a commit behind it waits little."""


_logger = logging.getLogger("headrace.streams")


class _Old(NamedTuple):
    """Logs to drop: finished rows with these ``numbers``, or those ``members`` of a ``pack`` that keeps ``rest``."""

    ids: list[str]
    size: int
    numbers: Sequence[int] = ()
    pack: int | None = None
    members: Sequence[Whole] = ()
    rest: Sequence[Whole] = ()


class Retention:
    """Holds the bounds. ``finished`` and ``bytes``: the finished generations in the file now."""

    def __init__(
        self, connection: sqlite3.Connection, bounds: Bounds, finished: int, kept_bytes: int
    ) -> None:
        self._connection = connection
        self._bounds = bounds
        self._page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        self.finished = finished
        self.bytes = kept_bytes

    def added(self, finished: int, kept_bytes: int) -> None:
        """Generations that finished."""
        self.finished += finished
        self.bytes += kept_bytes

    def enforce(self, now: float) -> bool:
        """Drop what the bounds no longer allow, at most ``DROPS_AT_ONCE``. Whether anything was dropped.

        Count and bytes may be exceeded by 1 % before anything happens: dropping many at once is cheaper."""
        bounds = self._bounds
        passed = self._passed(now)
        if passed:
            self._drop(passed, "passed")
        over = (
            self.finished > bounds.keep_generations + bounds.keep_generations // 100
            or self.bytes > bounds.keep_bytes + bounds.keep_bytes // 100
        )
        dropped = bool(passed)
        for old in self._doomed(now, over):
            self._drop([old], "bounds")
            dropped = True
        if dropped:
            self._shrink()
        return dropped

    def _passed(self, now: float) -> list[_Old]:
        """Logs and packs that were to be kept for a while only, which is over."""
        due = self._connection.execute(
            "SELECT kind, key, id, size FROM passing LEFT JOIN generations ON kind = 'n' AND n = key"
            " WHERE until < ? LIMIT ?",
            (now, DROPS_AT_ONCE),
        )
        found: list[_Old] = []
        rows: list[tuple[int, str, int]] = []
        count = 0
        for kind, key, id, size in due.fetchall():
            if count >= DROPS_AT_ONCE:
                break
            if kind == "k":
                found.append(self._of_pack(key, None))
                count += len(found[-1].ids)
            else:
                rows.append((key, id, size))
                count += 1
        return found + _of_rows(rows)

    def _doomed(self, now: float, over: bool) -> list[_Old]:
        bounds = self._bounds
        horizon = now - bounds.keep_s
        too_many = self.finished - bounds.keep_generations if over else 0
        too_big = self.bytes - bounds.keep_bytes if over else 0
        doomed: list[_Old] = []
        rows: list[tuple[int, str, int]] = []
        count = 0
        oldest = self._oldest()
        for n, id, size, ended_at, k in oldest:
            aged = ended_at < horizon
            if count >= DROPS_AT_ONCE or not (aged or too_many > 0 or too_big > 0):
                break
            logs = 1
            if k is None:
                rows.append((n, id, size))
            else:
                old = self._of_pack(k, None if aged else (too_many, too_big))
                doomed.append(old)
                logs, size = len(old.ids), old.size
            too_many -= logs
            too_big -= size
            count += logs
        oldest.close()
        return doomed + _of_rows(rows)

    def _oldest(self) -> Generator[tuple[int, str, int, float, int | None], None, None]:
        """Finished logs and packs, in the order in which they began."""
        run = self._connection.execute
        rows = run(
            "SELECT n, id, size, ended_at, NULL FROM generations WHERE end IS NOT NULL ORDER BY n LIMIT ?",
            (DROPS_AT_ONCE,),
        )
        packs = run(
            "SELECT first_n, '', size, ended_at, k FROM packs ORDER BY first_n LIMIT ?",
            (DROPS_AT_ONCE,),
        )
        try:
            yield from merge(rows, packs)  # mostly one look at each: nothing is to be dropped
        finally:
            rows.close()
            packs.close()

    def _of_pack(self, k: int, excess: tuple[int, int] | None) -> _Old:
        """The oldest logs of a pack, as many as are too many (or their bytes too much); None: all."""
        run = self._connection.execute
        size, body = run("SELECT size, body FROM packs WHERE k = ?", (k,)).fetchone()
        try:
            logs = sorted(unpack(body), key=lambda log: log.n)
        except msgspec.MsgspecError as error:
            _logger.error("a pack of generations is damaged and dropped: %s", error)
            ids = [id for (id,) in run("SELECT id FROM packed WHERE k = ?", (k,))]
            return _Old(ids, size, pack=k)
        end = len(logs)
        if excess is not None:
            too_many, too_big = excess
            end = 0
            while end < len(logs) and (too_many > 0 or too_big > 0):
                too_many -= 1
                too_big -= logs[end].size
                end += 1
        gone = logs[:end]
        size = sum(log.size for log in gone)
        return _Old([log.id for log in gone], size, pack=k, members=gone, rest=logs[end:])

    def forget_row(self, n: int, id: str, size: int) -> None:
        """Drop one finished log, as if it had never been."""
        self._drop(_of_rows([(n, id, size)]), "request")

    def forget_packed(self, k: int, id: str) -> None:
        """The same for one in a pack. Raises ``msgspec.MsgspecError`` if that is damaged."""
        body = self._connection.execute("SELECT body FROM packs WHERE k = ?", (k,)).fetchone()[0]
        logs = unpack(body)
        ours = [log for log in logs if log.id == id]
        rest = [log for log in logs if log.id != id]
        size = sum(log.size for log in ours)
        self._drop([_Old([id], size, pack=k, members=ours, rest=rest)], "request")

    def _drop(self, doomed: Sequence[_Old], why: Literal["bounds", "request", "passed"]) -> None:
        """In one transaction. By the bounds: remembered as dropped; on request: never to come back with a journal.
        One that has passed is as if it had never been: its journal says itself when it ended."""
        run = self._connection.execute
        count = sum(len(old.ids) for old in doomed)
        size = sum(old.size for old in doomed)
        run("BEGIN IMMEDIATE")
        try:
            for old in doomed:
                if old.pack is None:
                    self._drop_rows(old.numbers)
                else:
                    self._drop_packed(old.pack, old)
                if why == "request":
                    self._forbid(old)
                elif why == "bounds":
                    self._bury(sorted(old.ids))
            run("UPDATE totals SET finished = finished - ?, bytes = bytes - ?", (count, size))
            run("COMMIT")
        except BaseException:
            rollback(self._connection)
            raise
        self.finished -= count
        self.bytes -= size

    def _forbid(self, old: _Old) -> None:
        """These must not be played back from the journal."""
        numbers = [log.n for log in old.members] or old.numbers
        self._connection.executemany(
            "INSERT OR IGNORE INTO deleted VALUES (?)", [(n,) for n in numbers]
        )

    def _drop_rows(self, numbers: Sequence[int]) -> None:
        """A statement a table, however many they are: beside a busy event loop each costs about as much as a row."""
        run = self._connection.execute
        these = "SELECT value FROM json_each(?)"
        values = (msgspec.json.encode(numbers).decode(),)
        run(
            "DELETE FROM segments WHERE key IN (SELECT old.key FROM json_each(?) JOIN segments AS old"
            f" ON old.key >= value << {ORDINAL_BITS} AND old.key < (value + 1) << {ORDINAL_BITS})",
            values,
        )
        run(f"DELETE FROM generations WHERE n IN ({these})", values)
        run(f"DELETE FROM passing WHERE kind = 'n' AND key IN ({these})", values)

    def _drop_packed(self, k: int, old: _Old) -> None:
        run = self._connection.execute
        run(
            "DELETE FROM packed WHERE id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(old.ids).decode(),),
        )
        sessions = [
            (log.tenant, log.session, log.n) for log in old.members if log.session is not None
        ]
        self._connection.executemany(
            "DELETE FROM packed_sessions WHERE tenant = ? AND session = ? AND n = ?", sessions
        )
        if not old.rest:
            run("DELETE FROM packs WHERE k = ?", (k,))
            run("DELETE FROM passing WHERE kind = 'k' AND key = ?", (k,))
            return
        rest = packed(old.rest)
        run(
            "UPDATE packs SET first_n = ?, logs = ?, size = ?, body = ? WHERE k = ?",
            (rest.first_n, rest.logs, rest.size, rest.body, k),
        )

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
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        spare = free - SPARE_BYTES // self._page_bytes
        if spare > 0:
            # Not execute(): that takes a single step, which gives back a single page.
            pages = min(spare, GIVEN_BACK_BYTES // self._page_bytes)
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def _of_rows(rows: Sequence[tuple[int, str, int]]) -> list[_Old]:
    """Those of ``generations``, each as its number, id and size: all as one, if there are any."""
    if not rows:
        return []
    numbers, ids, sizes = zip(*rows, strict=True)
    return [_Old([*ids], sum(sizes), numbers)]


def rollback(connection: sqlite3.Connection) -> None:
    """End a transaction that failed; SQLite may have ended it already."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def first_key(n: int) -> int:
    """The smallest key of log ``n`` in ``segments`` and ``raw``."""
    return n << ORDINAL_BITS
