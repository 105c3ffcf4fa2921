"""``Entry``: what the SQLite store knows of a log that is running, or that SQLite does not have whole yet.

An event passes: journal → ``pending`` → ``flight`` (being committed) → SQLite. It leaves memory when the
commit is done.
"""

from __future__ import annotations

from headrace.domain.event import Event
from headrace.streams.database import Changes, RawSegment, Row, Segment, Update
from headrace.streams.record import APPEND, ERROR, FINISH, LEFT, Record
from headrace.streams.retention import first_key
from headrace.streams.runs import Runs
from headrace.streams.store import End, KeptLog, LogHeader

SEGMENT_BYTES = 32 * 1024
"""A running log is committed when it has so much that SQLite lacks; segments are about that large."""

_NOTHING = Runs()
"""What an ended log has pending once it is being committed. Nothing is ever added to it."""
END_OF: dict[int, End] = {FINISH: "finish", ERROR: "error"}


class RawDeltas:
    """The private deltas of a log that may go on after a restart. ``segments``: rows of them in SQLite."""

    __slots__ = ("flight", "pending", "segments")

    def __init__(self, segments: int = 0) -> None:
        self.pending: list[tuple[int, bytes]] = []
        self.flight: list[tuple[int, bytes]] = []
        self.segments = segments

    def add(self, count: int, run: bytes) -> None:
        self.pending.append((count, run))

    def take_off(self, n: int) -> RawSegment | None:
        """What SQLite lacks, as one row; None if it lacks nothing."""
        self.flight, self.pending = self.pending, []
        if not self.flight:
            return None
        count = sum(count for count, _ in self.flight)
        run = b"".join(run for _, run in self.flight)
        return RawSegment(first_key(n) + self.segments, count, run)

    def land(self) -> None:
        """The commit succeeded."""
        self.segments += bool(self.flight)
        self.flight = []

    def turn_back(self) -> None:
        """The commit failed."""
        self.pending = self.flight + self.pending
        self.flight = []


class Entry:
    """A log of number ``n``. ``seq``: its newest event in the journal. ``encoded``: its header, until SQLite
    has it. ``in_row``: SQLite knows it; ``dirty``: SQLite lacks something of it. ``failed``: it cannot be stored.
    """

    __slots__ = (
        "dirty",
        "encoded",
        "end",
        "ended_at",
        "failed",
        "flight",
        "header",
        "in_row",
        "left_at",
        "n",
        "pending",
        "queued",
        "raw",
        "segments",
        "segments_flight",
        "seq",
        "size",
    )

    def __init__(self, n: int, header: LogHeader, encoded: bytes) -> None:
        self.n = n
        self.header = header
        self.encoded = encoded
        self.size = len(encoded)
        self.pending = Runs()
        self.flight: Runs | None = None
        self.raw: RawDeltas | None = None
        self.end: End | None = None
        self.ended_at: float | None = None
        self.left_at: float | None = None
        self.seq = self.segments = self.segments_flight = 0
        self.in_row = self.dirty = self.queued = self.failed = False

    @classmethod
    def of_row(cls, row: Row, header: LogHeader) -> Entry:
        """A log as SQLite has it."""
        entry = cls(row.n, header, b"")
        entry.in_row = True
        entry.seq, entry.size, entry.segments = row.last_seq, row.size, row.segments
        entry.pending = Runs(row.last_seq + 1)
        if row.raw_segments:
            entry.raw = RawDeltas(row.raw_segments)
        entry.end, entry.ended_at, entry.left_at = row.end, row.ended_at, row.left_at
        return entry

    def kept(self) -> KeptLog:
        return KeptLog(self.header, self.seq, self.end)

    def took(self, count: int, run: bytes, raw_count: int, raw: bytes) -> None:
        """These are in the journal."""
        self.dirty = True
        if count:
            self.pending.add_run(run, count)
            self.seq += count
            self.size += len(run)
        if raw_count:
            if self.raw is None:
                self.raw = RawDeltas()
            self.raw.add(raw_count, raw)

    def ended(self, kind: int, now: float) -> None:
        """The terminal event is in the journal."""
        self.end = END_OF[kind]
        self.ended_at = now

    def apply(self, record: Record, now: float) -> None:
        """What a record of the journal says."""
        if record.kind == LEFT:
            self.dirty = True
            self.left_at = record.left_at
            return
        self.took(record.events, record.run, record.raw_count, record.raw)
        if record.kind != APPEND:
            self.ended(record.kind, now)

    # From the journal to SQLite.

    def save(self, changes: Changes) -> None:
        """Put everything that SQLite lacks into the next commit."""
        self.flight = self.pending
        self.pending = Runs(self.seq + 1) if self.end is None else _NOTHING
        self.dirty = False
        self._save_events(changes, self.flight)
        raw_segments = 0 if self.raw is None else self._save_raw(changes, self.raw)
        if self.end is not None:
            changes.finished += 1
            changes.finished_bytes += self.size
        segments = self.segments + self.segments_flight
        state = (self.seq, self.end, self.ended_at, self.left_at, self.size, segments, raw_segments)
        if self.in_row:
            changes.updates.append(Update(changes.frame, *state, self.n))
        else:
            header, caller = self.header, self.header.caller
            changes.rows.append(
                Row(
                    self.n,
                    header.id,
                    caller.tenant,
                    caller.session_id,
                    changes.frame,
                    *state,
                    self.encoded,
                )
            )

    def saved(self) -> int:
        """The commit succeeded. Returns the bytes that only SQLite has now."""
        assert self.flight is not None
        saved_bytes = len(self.flight)
        self.flight = None
        self.segments += self.segments_flight
        self.segments_flight = 0
        self.in_row = True
        self.encoded = b""
        if self.raw is not None:
            self.raw.land()
        return saved_bytes

    def unsaved(self) -> None:
        """The commit failed: it is all to be done again."""
        assert self.flight is not None
        self.flight.join(self.pending)
        self.pending, self.flight = self.flight, None
        self.segments_flight = 0
        self.dirty = True
        if self.raw is not None:
            self.raw.turn_back()

    def newest(self, after: int, limit_bytes: int) -> list[Event]:
        """Events in memory."""
        if self.flight is not None and self.flight.holds(after + 1):
            return self.flight.after(after, limit_bytes)
        return self.pending.after(after, limit_bytes)

    def _save_events(self, changes: Changes, runs: Runs) -> None:
        key = first_key(self.n) + self.segments
        for first, count, run in runs.pieces(SEGMENT_BYTES):
            last = first + count - 1
            changes.segments.append(Segment(key + self.segments_flight, last, count, run))
            self.segments_flight += 1

    def _save_raw(self, changes: Changes, raw: RawDeltas) -> int:
        """How many rows of raw deltas there are after this commit."""
        if self.end is not None:
            if raw.segments:
                changes.raw_ended.append(self.n)
            return 0
        segment = raw.take_off(self.n)
        if segment is not None:
            changes.raw.append(segment)
        return raw.segments + (segment is not None)
