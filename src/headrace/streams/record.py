"""A record of the journal: what one append added to one log.

A log's header stands in the record of its first events, and raw deltas in that of the events they
produced: all or nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

_HEAD = Struct("<QBQIIIII")
pack_head = _HEAD.pack
"""The head of a record: ``frame``, ``kind``, ``n``, ``first``, ``events``, the lengths of ``header`` and ``run``,
``raw_count``. Header, run and raw deltas follow it."""
HEAD_BYTES = _HEAD.size
_TIME = Struct("<d")
_NOBODY_LEFT = float("inf")

APPEND = 2
FINISH = 3
ERROR = 4
LEFT = 5
"""Kinds of record. ``APPEND``: events or deltas; ``FINISH``, ``ERROR``: the last is that terminal event;
``LEFT``: when the last client left."""


class Record(NamedTuple):
    """Number ``frame`` of the journal, about log ``n``. ``header``: of the log, in its first record.
    ``run``: ``events`` events from seq ``first`` on (or the time); ``raw``: ``raw_count`` deltas."""

    frame: int
    kind: int
    n: int
    first: int
    events: int
    header: bytes
    run: bytes
    raw_count: int
    raw: bytes

    @property
    def left_at(self) -> float | None:
        """The time in a ``LEFT`` record."""
        time: float = _TIME.unpack(self.run)[0]
        return None if time == _NOBODY_LEFT else time


def left_run(left_at: float | None) -> bytes:
    """The time of a ``LEFT`` record; None: somebody came back."""
    return _TIME.pack(_NOBODY_LEFT if left_at is None else left_at)


def read_record(body: bytes) -> Record:
    """Raises ``struct.error`` if it is not one of ours."""
    frame, kind, n, first, events, header_length, run_length, raw_count = _HEAD.unpack_from(body)
    start = _HEAD.size
    middle = start + header_length
    end = middle + run_length
    return Record(
        frame, kind, n, first, events, body[start:middle], body[middle:end], raw_count, body[end:]
    )
