"""``Entry``: what the SQLite store knows of a log that is running, or that SQLite does not have whole yet.

An event passes: journal → ``pending`` → ``flight`` (being committed) → SQLite. It leaves memory when the
commit is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.event import End, Event
from headrace.streams.database import Changes, RawSegment, Row, Segment, Update
from headrace.streams.encoded import decode_events, encode, encode_run
from headrace.streams.journal import Journal
from headrace.streams.record import (
    APPEND,
    ERROR,
    FINISH,
    LEFT,
    WITH_RAW,
    Record,
    left_run,
    pack_head,
)
from headrace.streams.retention import first_key
from headrace.streams.runs import PIECE_BYTES, Runs
from headrace.streams.store import KeptLog, LogHeader

KIND_OF: dict[End | None, int] = {None: APPEND, "finish": FINISH, "error": ERROR}
"""The kind of the record whose last event is that end."""
_END_OF: dict[int, End] = {FINISH: "finish", ERROR: "error"}


class Home(Protocol):
    """The store of running logs, as they see it."""

    @property
    def journal(self) -> Journal: ...

    def now(self) -> float:
        """Unix seconds."""

    def queue(self, entry: Entry) -> None:
        """Bring this log into SQLite soon."""

    def refused(self, entry: Entry, error: OSError) -> HeadraceError:
        """The journal cannot take what this log has: it ends here. Returns what its readers are told."""


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
    """A log of number ``n``. Implements :class:`headrace.streams.store.LogWriter`, once it has a ``home``.
    ``encoded``: its header, until SQLite has it. ``in_row``: SQLite knows it. ``size``: its bytes in SQLite.
    ``failed``: it cannot be stored.
    """

    __slots__ = (
        "_journal",
        "_noted",
        "encoded",
        "end",
        "ended_at",
        "failed",
        "flight",
        "header",
        "home",
        "in_row",
        "left_at",
        "n",
        "pending",
        "queued",
        "raw",
        "segments",
        "segments_flight",
        "size",
    )

    home: Home
    _journal: Journal

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
        self.segments = self.segments_flight = 0
        # SQLite lacks something of it besides events and deltas.
        self._noted = True
        self.in_row = self.queued = self.failed = False

    @classmethod
    def of_row(cls, row: Row, header: LogHeader) -> Entry:
        """A log as SQLite has it."""
        entry = cls(row.n, header, b"")
        entry._noted = False
        entry.in_row = True
        entry.size, entry.segments = row.size, row.segments
        entry.pending = Runs(row.last_seq + 1)
        if row.raw_segments:
            entry.raw = RawDeltas(row.raw_segments)
        entry.end, entry.ended_at, entry.left_at = row.end, row.ended_at, row.left_at
        return entry

    @property
    def seq(self) -> int:
        """The newest event in the journal."""
        return self.pending.last

    @property
    def dirty(self) -> bool:
        """Whether SQLite lacks something of it that is not being committed."""
        raw = self.raw
        return self._noted or self.pending.size > 0 or (raw is not None and bool(raw.pending))

    def kept(self) -> KeptLog:
        return KeptLog(self.header, self.seq, self.end)

    # Into the journal.

    def settle(self, home: Home) -> Entry:
        """It goes on here."""
        self.home = home
        self._journal = home.journal
        return self

    def append(self, events: Sequence[Event], raw: Sequence[Delta], end: End | None) -> None:
        # All in one function, for every event passes here; see Log.append.
        if self.failed:  # noting that a client left was refused
            raise self.home.refused(self, OSError("it could not be stored before"))
        count = len(events)
        run = encode(events[0]) if count == 1 else encode_run(events)
        try:
            if raw and end is None:
                both = encode((events, raw))
                self._journal.append(pack_head(APPEND + WITH_RAW, self.n, count) + both)
                self.add_raw(len(raw), encode_run(raw))
            else:
                self._journal.append(pack_head(KIND_OF[end], self.n, count) + run)
        except OSError as error:
            raise self.home.refused(self, error) from error
        pending = self.pending
        pending.tail += run
        pending.last += count
        if end is not None:
            self.ended(end, self.home.now())
            self.home.queue(self)
        elif len(pending.tail) >= PIECE_BYTES:
            pending.seal()
            self.home.queue(self)

    def left(self, left_at: float | None) -> None:
        if self.failed or self.end is not None:
            return
        try:
            self._journal.append(pack_head(LEFT, self.n, 0) + left_run(left_at))
        except OSError as error:
            self.home.refused(self, error)  # told by the log's next event
            return
        except HeadraceError:
            return  # the store closes
        self.note_left(left_at)

    # What is in the journal.

    def note_left(self, left_at: float | None) -> None:
        self._noted = True
        self.left_at = left_at

    def add_raw(self, count: int, run: bytes) -> None:
        if self.raw is None:
            self.raw = RawDeltas()
        self.raw.add(count, run)

    def ended(self, end: End, now: float) -> None:
        self._noted = True
        self.end = end
        self.ended_at = now

    def apply(self, record: Record, now: float) -> None:
        """What a record of the journal says."""
        if record.kind == LEFT:
            self.note_left(record.left_at)
            return
        self.pending.add_run(record.run, record.events)
        if record.raw_count:
            self.add_raw(record.raw_count, record.raw)
        if record.kind == APPEND:
            return
        if not self.header.request.keep:  # for so long behind its end, whenever it is played back
            now = decode_events(record.run, record.events)[-1].timestamp
        self.ended(_END_OF[record.kind], now)

    # From the journal to SQLite.

    def save(self, changes: Changes) -> None:
        """Put everything that SQLite lacks into the next commit."""
        self.flight = self.pending
        self.pending = Runs(self.seq + 1)
        self._noted = False
        size = self.size + self.flight.size
        self._save_events(changes, self.flight)
        raw_segments = 0 if self.raw is None else self._save_raw(changes, self.raw)
        if self.end is not None:
            changes.finished += 1
            changes.finished_bytes += size
            keep_s = self.header.keep_s
            if keep_s is not None and self.ended_at is not None:
                changes.passing.append((self.n, self.ended_at + keep_s))
        segments = self.segments + self.segments_flight
        state = (self.seq, self.end, self.ended_at, self.left_at, size, segments, raw_segments)
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

    def saved(self) -> None:
        """The commit succeeded."""
        assert self.flight is not None
        self.size += self.flight.size
        self.flight = None
        self.segments += self.segments_flight
        self.segments_flight = 0
        self.in_row = True
        self.encoded = b""
        if self.raw is not None:
            self.raw.land()

    def unsaved(self) -> None:
        """The commit failed: it is all to be done again."""
        assert self.flight is not None
        self.flight.join(self.pending)
        self.pending, self.flight = self.flight, None
        self.segments_flight = 0
        self._noted = True
        if self.raw is not None:
            self.raw.turn_back()

    def newest(self, after: int, limit_bytes: int) -> list[Event]:
        """Events in memory."""
        events = self.pending.after(after, limit_bytes)
        return events or ([] if self.flight is None else self.flight.after(after, limit_bytes))

    def _save_events(self, changes: Changes, runs: Runs) -> None:
        key = first_key(self.n) + self.segments
        for first, count, run in runs.pieces():
            last = first + count - 1
            changes.segments.append(Segment(key + self.segments_flight, last, count, run))
            self.segments_flight += 1

    def _save_raw(self, changes: Changes, raw: RawDeltas) -> int:
        """How many rows of raw deltas there are after this commit."""
        if self.end is not None:
            if raw.segments:
                changes.raw_ended.append(self.n)
            raw.pending.clear()  # nobody goes on from it
            return 0
        segment = raw.take_off(self.n)
        if segment is not None:
            changes.raw.append(segment)
        return raw.segments + (segment is not None)
