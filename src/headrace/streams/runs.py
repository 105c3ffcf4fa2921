"""``Runs``: consecutive events of one log in memory, compactly encoded (about 25 bytes a small event)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from headrace.domain.event import Event
from headrace.streams.encoded import decode_events, encode_run

PIECE_BYTES = 32 * 1024
"""Size of a piece, about: what finding one event of it costs is to decode it."""


class Piece(NamedTuple):
    """``events`` events from ``first`` on."""

    first: int
    events: int
    run: bytes


class Runs:
    """Events from some ``seq`` on: full pieces, and behind them the ``tail``, to which the next are added.
    ``last``: the newest event, or the one before the first to come.

    Where in a piece an event is nobody notes: adding is done for every event, looking is rare. Whoever is in
    a hurry adds to ``tail`` and ``last`` itself, and calls :meth:`seal` at ``PIECE_BYTES``.
    Not bounded by itself: its owner looks at ``size`` and forgets.
    """

    __slots__ = ("_first", "_pieces", "last", "tail")

    def __init__(self, next_seq: int = 1) -> None:
        self.tail = bytearray()
        self.last = next_seq - 1
        self._first = next_seq
        self._pieces: list[Piece] | None = None

    @property
    def size(self) -> int:
        """Bytes of encoded events."""
        return len(self.tail) + sum(len(piece.run) for piece in self._pieces or ())

    def add(self, events: Sequence[Event]) -> None:
        """The next events, consecutive to those before."""
        self.add_run(encode_run(events), len(events))

    def add_run(self, run: bytes, count: int) -> None:
        """The next ``count`` events, encoded already."""
        self.tail += run
        self.last += count
        if len(self.tail) >= PIECE_BYTES:
            self.seal()

    def seal(self) -> None:
        """The tail is a piece from now on."""
        self._pieces = self.pieces()
        self.tail = bytearray()
        self._first = self.last + 1

    def pieces(self) -> list[Piece]:
        """Everything."""
        pieces = self._pieces or []
        if not self.tail:
            return pieces
        return [*pieces, Piece(self._first, self.last + 1 - self._first, bytes(self.tail))]

    def after(self, cursor: int, limit_bytes: int) -> list[Event]:
        """Events after ``cursor``, about ``limit_bytes`` of them and at least one; none if the next
        one is not here."""
        if cursor >= self.last:
            return []
        first = self._first
        run: bytes | bytearray = self.tail
        count = self.last + 1 - first
        if cursor + 1 < first:
            pieces = self._pieces or ()
            at = bisect_right(pieces, cursor + 1, key=lambda piece: piece.first) - 1
            if at < 0:
                return []
            first, count, run = pieces[at]
        events = decode_events(run, count)
        start = cursor + 1 - first
        return events[start : start + max(1, count * limit_bytes // len(run))]

    def join(self, later: Runs) -> None:
        """Take over the events that follow these."""
        if later._pieces:
            self.seal()
            self._pieces = [*(self._pieces or ()), *later._pieces]
            self.tail, self._first = later.tail, later._first
        else:
            self.tail += later.tail
        self.last = later.last
        if len(self.tail) >= PIECE_BYTES:
            self.seal()
