"""``Entry``: what the SQLite store knows of a log that has something which is not in SQLite yet, or is running.

An event passes: ``fresh`` (appended, nowhere yet) → journal → ``pending`` → ``flight`` (being committed)
→ SQLite. From ``pending`` on it can be read, and it is in one of the three until the commit is done.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Event, Finish, is_terminal
from headrace.streams.database import Changes, RawSegment, Row, Segment, Update
from headrace.streams.encoded import encode_run
from headrace.streams.record import Kind, Record
from headrace.streams.retention import first_key
from headrace.streams.runs import Runs
from headrace.streams.store import Appended, End, KeptLog, LogHeader

SEGMENT_BYTES = 32 * 1024
"""A running log is committed when it has so much that SQLite lacks; segments are about that large."""

_ENCODER = msgspec.msgpack.Encoder()


class Entry:
    """A log of number ``n``. ``seq``: newest event in the journal; ``saved_seq``: in SQLite."""

    __slots__ = (
        "begun",
        "dirty",
        "encoded",
        "end",
        "ended_at",
        "failed",
        "flight",
        "fresh",
        "fresh_raw",
        "header",
        "in_row",
        "left_at",
        "log",
        "n",
        "pending",
        "queued",
        "raw",
        "raw_flight",
        "raw_segments",
        "raw_segments_flight",
        "saved_seq",
        "segments",
        "segments_flight",
        "seq",
        "size",
        "touched",
    )

    def __init__(self, n: int, header: LogHeader, encoded: bytes | None = None) -> None:
        self.n = n
        self.header = header
        self.encoded = _ENCODER.encode(header) if encoded is None else encoded
        self.begun = False
        self.log: Appended | None = None
        self.fresh: Sequence[Event] = ()
        self.fresh_raw: Sequence[Delta] = ()
        self.touched = False
        self.seq = 0
        self.saved_seq = 0
        self.pending = Runs()
        self.flight: Runs | None = None
        self.raw: list[tuple[int, bytes]] = []
        self.raw_flight: list[tuple[int, bytes]] = []
        self.segments = 0
        self.raw_segments = 0
        self.segments_flight = 0
        self.raw_segments_flight = 0
        self.in_row = False
        self.dirty = False
        self.queued = False
        self.failed = False
        self.end: End | None = None
        self.ended_at: float | None = None
        self.left_at: float | None = None
        self.size = len(self.encoded)

    @classmethod
    def of_row(cls, row: Row, header: LogHeader) -> Entry:
        """A log as SQLite has it."""
        entry = cls(row.n, header, row.header)
        entry.encoded = b""
        entry.begun = entry.in_row = True
        entry.seq = entry.saved_seq = row.last_seq
        entry.pending = Runs(row.last_seq + 1)
        entry.segments = row.segments
        entry.raw_segments = row.raw_segments
        entry.end, entry.ended_at, entry.left_at = row.end, row.ended_at, row.left_at
        entry.size = row.size
        return entry

    def kept(self) -> KeptLog:
        return KeptLog(self.header, self.seq, self.end)

    # From fresh to the journal.

    def add(self, events: Sequence[Event], raw: Sequence[Delta]) -> None:
        if events:
            self.fresh = [*self.fresh, *events] if self.fresh else events
        if raw:
            self.fresh_raw = [*self.fresh_raw, *raw] if self.fresh_raw else raw

    def next_record(self) -> Record:
        """The journal's record of what is fresh; afterwards nothing is."""
        events, raw = self.fresh, self.fresh_raw
        self.fresh, self.fresh_raw = (), ()
        kind = Kind.APPEND
        if events and is_terminal(events[-1]):
            kind = Kind.FINISH if isinstance(events[-1], Finish) else Kind.ERROR
        run = encode_run(events) if events else b""
        if not raw:
            return Record(kind, self.n, self.seq + 1, len(events), run)
        return Record(kind, self.n, self.seq + 1, len(events), run, len(raw), encode_run(raw))

    def apply(self, record: Record, now: float) -> None:
        """The record is in the journal."""
        self.begun = self.dirty = True
        kind = record.kind
        if kind is Kind.LEFT:
            self.left_at = record.left_at
            return
        if record.run_count:
            self.pending.add_run(record.run, record.run_count)
            self.seq += record.run_count
            self.size += len(record.run)
        if record.raw_count:
            self.raw.append((record.raw_count, record.raw))
        if kind is not Kind.APPEND:
            self.end = "finish" if kind is Kind.FINISH else "error"
            self.ended_at = now

    # From the journal to SQLite.

    def save(self, changes: Changes) -> None:
        """Put everything that SQLite lacks into the next commit."""
        self.flight, self.pending = self.pending, Runs(self.seq + 1)
        self.raw_flight, self.raw = self.raw, []
        self.dirty = False
        self._save_events(changes, self.flight)
        self._save_raw(changes)
        frame = changes.frame
        if self.end is not None:
            changes.finished += 1
            changes.finished_bytes += self.size
        if self.in_row:
            changes.updates.append(
                Update(
                    frame,
                    self.seq,
                    self.end,
                    self.ended_at,
                    self.left_at,
                    self.size,
                    self.segments + self.segments_flight,
                    self.raw_segments + self.raw_segments_flight,
                    self.n,
                )
            )
            return
        caller = self.header.caller
        changes.rows.append(
            Row(
                self.n,
                self.header.id,
                caller.tenant,
                caller.session_id,
                frame,
                self.seq,
                self.end,
                self.ended_at,
                self.left_at,
                self.size,
                self.segments + self.segments_flight,
                self.raw_segments + self.raw_segments_flight,
                self.encoded,
            )
        )

    def saved(self) -> int:
        """The commit succeeded. Returns the bytes that are now in SQLite only."""
        assert self.flight is not None
        saved_bytes = len(self.flight)
        self.saved_seq = self.flight.last_seq
        self.in_row = True
        self.encoded = b""
        self.segments += self.segments_flight
        self.raw_segments += self.raw_segments_flight
        self._land()
        return saved_bytes

    def unsaved(self) -> None:
        """The commit failed: it is all to be done again."""
        assert self.flight is not None
        self.flight.join(self.pending)
        self.pending = self.flight
        self.raw = self.raw_flight + self.raw
        self.dirty = True
        self._land()

    def newest(self, after: int, limit_bytes: int) -> list[Event]:
        """Events that SQLite lacks."""
        if self.flight is not None and self.flight.holds(after + 1):
            return self.flight.after(after, limit_bytes)
        return self.pending.after(after, limit_bytes)

    def _land(self) -> None:
        self.flight = None
        self.raw_flight = []
        self.segments_flight = self.raw_segments_flight = 0

    def _save_events(self, changes: Changes, runs: Runs) -> None:
        key = first_key(self.n) + self.segments
        for first, count, run in runs.pieces(SEGMENT_BYTES):
            last = first + count - 1
            changes.segments.append(Segment(key + self.segments_flight, last, count, run))
            self.segments_flight += 1

    def _save_raw(self, changes: Changes) -> None:
        if self.end is not None:
            if self.raw_segments:
                changes.raw_ended.append(self.n)
        elif self.raw_flight:
            count = sum(count for count, _ in self.raw_flight)
            run = b"".join(run for _, run in self.raw_flight)
            changes.raw.append(RawSegment(first_key(self.n) + self.raw_segments, count, run))
            self.raw_segments_flight = 1
