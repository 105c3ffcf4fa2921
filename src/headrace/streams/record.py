"""What stands in a journal frame: records about logs, one after the other.

``n`` is the store's own number of a log. A log's *begin* record is in the same frame as its first
events, and raw deltas are in the same record as the events they produced: all or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

_HEAD = Struct("<BQIIIII")
_TIME = Struct("<d")
_NOBODY_LEFT = float("inf")


BEGIN = 1
APPEND = 2
FINISH = 3
ERROR = 4
LEFT = 5
"""Kinds of record. ``APPEND``: events follow; ``FINISH``, ``ERROR``: the last of them is that terminal event."""


class Record(NamedTuple):
    """``run``: ``run_count`` events from seq ``first`` on (or the encoded header, or the time);
    ``raw``: ``raw_count`` deltas."""

    kind: int
    n: int
    first: int
    run_count: int
    run: bytes
    raw_count: int = 0
    raw: bytes = b""

    def encode(self) -> bytes:
        kind, n, first, run_count, run, raw_count, raw = self
        head = _HEAD.pack(kind, n, first, run_count, len(run), raw_count, len(raw))
        return head + run + raw

    @property
    def left_at(self) -> float | None:
        """The time in a ``LEFT`` record."""
        time: float = _TIME.unpack(self.run)[0]
        return None if time == _NOBODY_LEFT else time


def begin_record(n: int, header: bytes) -> Record:
    return Record(BEGIN, n, 0, 0, header)


def left_record(n: int, left_at: float | None) -> Record:
    return Record(LEFT, n, 0, 0, _TIME.pack(_NOBODY_LEFT if left_at is None else left_at))


def read_records(body: bytes) -> Iterator[Record]:
    """The records of a frame. Raises ``struct.error`` or ``ValueError`` if it is not one of ours."""
    at = 0
    while at < len(body):
        kind, n, first, run_count, length, raw_count, raw_length = _HEAD.unpack_from(body, at)
        start = at + _HEAD.size
        middle = start + length
        at = middle + raw_length
        yield Record(kind, n, first, run_count, body[start:middle], raw_count, body[middle:at])
