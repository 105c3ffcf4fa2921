"""A record of the journal: what one append added to one log.

A log's header stands in the record of its first events, and raw deltas in that of the events they
produced: all or nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

import msgspec

_HEAD = Struct("<BQI")
pack_head = _HEAD.pack
"""The head of a record: ``kind``, ``n``, the number of events. What follows it depends on the kind."""
_TIME = Struct("<d")
_NOBODY_LEFT = float("inf")

APPEND = 2
FINISH = 3
ERROR = 4
LEFT = 5
"""Kinds of record. ``APPEND``: events; ``FINISH``, ``ERROR``: the last is that terminal event; all as a
run. ``LEFT``: the time when the last client left."""
BEGINS = 16
"""Added to the kind of a log's first record: then it is the array ``[header, events, raw deltas]``."""
WITH_RAW = 32
"""Added to the kind of any other that has raw deltas: then it is the array ``[events, raw deltas]``."""

_BEGINNING = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[msgspec.Raw], list[msgspec.Raw]])
_EVENTS_AND_RAW = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], list[msgspec.Raw]])


class Record(NamedTuple):
    """Number ``frame`` of the journal, about log ``n``. ``header``: of the log, in its first record.
    ``run``: the next ``events`` events (or the time); ``raw``: ``raw_count`` deltas."""

    frame: int
    kind: int
    n: int
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


def read_record(frame: int, body: bytes) -> Record:
    """Raises ``struct.error`` or ``msgspec.MsgspecError`` if it is not one of ours."""
    kind, n, count = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    if kind & BEGINS:
        encoded, events, raw = _BEGINNING.decode(rest)
        header, kind = bytes(encoded), kind - BEGINS
    elif kind & WITH_RAW:
        events, raw = _EVENTS_AND_RAW.decode(rest)
        header, kind = b"", kind - WITH_RAW
    else:
        return Record(frame, kind, n, count, b"", rest, 0, b"")
    return Record(frame, kind, n, count, header, b"".join(events), len(raw), b"".join(raw))
