"""What a crash left: the journal's files played back on top of SQLite, then everything in SQLite.

A row says up to which frame the journal is in it, so playing a file back twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Event
from headrace.streams.database import Changes, Database
from headrace.streams.encoded import decode_deltas, decode_events
from headrace.streams.entry import Entry
from headrace.streams.journal import read_records
from headrace.streams.record import Record
from headrace.streams.repeats import Repeats
from headrace.streams.store import LogHeader, Recovered

_HEADER = msgspec.msgpack.Decoder(LogHeader)
_logger = logging.getLogger("headrace.streams")


class Replay:
    """Plays journal files back. ``frame`` and ``next_n``: where new frames and logs go on."""

    def __init__(self, database: Database, now: float) -> None:
        self._database = database
        self._now = now
        # Log number -> the log and the frame up to which SQLite has it; None for one that was dropped.
        self._logs: dict[int, tuple[Entry, int] | None] = {}
        self._repeats = Repeats()
        self.frame = database.frame
        self.next_n = database.next_n

    def play(self, files: Iterable[Path]) -> None:
        """Apply all frames of these files, oldest first."""
        for file in files:
            for record in read_records(file):
                self.frame = max(self.frame, record.frame)
                self._apply(record)

    def save(self) -> None:
        """Commit what SQLite lacked."""
        changes = Changes(self.frame, self.next_n)
        changes.repeats = self._repeats.take()
        for found in self._logs.values():
            if found is not None and found[0].dirty:
                found[0].save(changes)
        self._database.commit(changes, self._now)

    def _apply(self, record: Record) -> None:
        n = record.n
        if n not in self._logs:
            self._logs[n] = self._find(record)
            self.next_n = max(self.next_n, n + 1)
        found = self._logs[n]
        if found is None:
            return
        entry, saved_frame = found
        if record.frame > saved_frame:
            entry.apply(record, self._now)

    def _find(self, record: Record) -> tuple[Entry, int] | None:
        row = self._database.row_of(record.n)
        if row is not None:
            return Entry.of_row(row, _HEADER.decode(row.header)), row.frame
        if not record.header:
            return None
        header = _HEADER.decode(record.header)
        if self._database.holds_packed(header.id) or self._database.gone(record.n, header.id):
            return None
        if header.caller.once is not None:
            self._repeats.note(header)
        return Entry(record.n, header, record.header), 0


def unfinished(database: Database) -> list[tuple[Entry, Recovered]]:
    """All logs without a terminal event, oldest first, with everything in them."""
    found = []
    for row in database.unfinished():
        header = _HEADER.decode(row.header)
        events = _events(database, row.n)
        # It goes on after what is there, even if a damaged file has less than its row says.
        row = row._replace(last_seq=events[-1].seq if events else 0)
        recovered = Recovered(header, events, _deltas(database, row.n), row.left_at)
        found.append((Entry.of_row(row, header), recovered))
    return found


def _events(database: Database, n: int) -> list[Event]:
    events: list[Event] = []
    after = 0
    while segments := database.segments(n, after, 1 << 20):
        after = segments[-1].last
        for segment in segments:
            events += decode_events(segment.run, segment.events)
    return events


def _deltas(database: Database, n: int) -> list[Delta]:
    return [
        delta
        for segment in database.raw_segments(n)
        for delta in decode_deltas(segment.run, segment.deltas)
    ]
