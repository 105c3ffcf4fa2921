"""Damage to a stored log, for tests of what readers and encoders make of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from headrace.streams.encoded import decode_events, encode_run
from headrace.streams.retention import first_key


def delete_event(database: Path, id: str, seq: int) -> None:
    """Take one event out of a log's stored segment. The store must be closed, or have checkpointed it."""
    connection = sqlite3.connect(database)
    with connection:
        (n,) = connection.execute("SELECT n FROM generations WHERE id = ?", (id,)).fetchone()
        rows = connection.execute(
            "SELECT key, events, run FROM segments WHERE key >= ? AND key < ?",
            (first_key(n), first_key(n + 1)),
        ).fetchall()
        for key, count, run in rows:
            events = decode_events(run, count)
            left = [event for event in events if event.seq != seq]
            if len(left) < len(events):
                connection.execute(
                    "UPDATE segments SET events = ?, run = ? WHERE key = ?",
                    (len(left), encode_run(left), key),
                )
                break
        else:
            raise LookupError(f"{id} has no event {seq} in {database}")
    connection.close()
