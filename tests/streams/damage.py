"""Damage to a stored log, for tests of what readers and encoders make of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from headrace.streams.encoded import decode_events, encode, encode_run
from headrace.streams.pack import packed, unpack
from headrace.streams.retention import first_key


def delete_event(database: Path, id: str, seq: int) -> None:
    """Take one event out of a log's stored segment. The store must be closed, or have checkpointed it."""
    with closing(sqlite3.connect(database)) as connection, connection:
        row = connection.execute("SELECT n FROM generations WHERE id = ?", (id,)).fetchone()
        if row is not None:
            found = _delete_from_segment(connection, row[0], seq)
        else:
            found = _delete_from_pack(connection, id, seq)
    if not found:
        raise LookupError(f"{id} has no event {seq} in {database}")


def _without(run: bytes, count: int, seq: int) -> tuple[int, bytes]:
    left = [event for event in decode_events(run, count) if event.seq != seq]
    return len(left), encode_run(left)


def _delete_from_segment(connection: sqlite3.Connection, n: int, seq: int) -> bool:
    rows = connection.execute(
        "SELECT key, events, run FROM segments WHERE key >= ? AND key < ?",
        (first_key(n), first_key(n + 1)),
    ).fetchall()
    for key, count, run in rows:
        left, rest = _without(run, count, seq)
        if left < count:
            connection.execute(
                "UPDATE segments SET events = ?, run = ? WHERE key = ?", (left, rest, key)
            )
            return True
    return False


def _delete_from_pack(connection: sqlite3.Connection, id: str, seq: int) -> bool:
    k, body = connection.execute(
        "SELECT k, body FROM packed JOIN packs USING (k) WHERE id = ?", (id,)
    ).fetchone()
    logs = unpack(body)
    [place] = [place for place, log in enumerate(logs) if log.id == id]
    log = logs[place]
    whole = log.after(0, len(log.run))
    rest = [event for event in whole if event.seq != seq]
    run = encode((log.kept().header, rest, ()))
    logs[place] = msgspec.structs.replace(log, run=run, events=len(rest))
    connection.execute("UPDATE packs SET body = ? WHERE k = ?", (packed(logs).body, k))
    return len(rest) < log.events
