"""Packs: logs that began and ended between two commits, many to a row of SQLite.

Most logs are short. As a row each, with its segments, they would cost SQLite more than the journal costs the
server; many in one blob they cost what their bytes do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

import msgspec

from headrace.domain.event import End, Event
from headrace.streams.encoded import decode_events
from headrace.streams.store import KeptLog, LogHeader

PACK_BYTES = 256 * 1024
"""Size of a pack, about, unless it holds a single larger log: what reading one log of it costs."""
PACK_LOGS = 256

_HEADER = msgspec.msgpack.Decoder(LogHeader)
_BEGINNING = msgspec.msgpack.Decoder(tuple[LogHeader, list[Event], msgspec.Raw])
_ONLY_HEADER = msgspec.msgpack.Decoder(tuple[LogHeader, msgspec.Raw, msgspec.Raw])


class Whole(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A log with all of its ``events``, the newest with ``seq`` ``last``. ``ended_at``: Unix seconds, about.
    ``run``: header and events, as the journal's record of a beginning has them; in those of older versions, which
    have a ``header``, only the events, as a run. ``keep_s``: the header's."""

    n: int
    id: str
    tenant: str
    session: str | None
    end: End
    ended_at: float
    last: int
    events: int
    header: bytes
    run: bytes
    keep_s: float | None = None

    @property
    def size(self) -> int:
        """Bytes that count for the store's bounds."""
        return len(self.header) + len(self.run)

    def kept(self) -> KeptLog:
        """Raises ``msgspec.MsgspecError`` if it is damaged."""
        if self.header:
            header = _HEADER.decode(self.header)
        else:
            header = _ONLY_HEADER.decode(self.run)[0]
        return KeptLog(header, self.last, self.end)

    def after(self, cursor: int, limit_bytes: int) -> list[Event]:
        """The events after ``cursor``, about ``limit_bytes`` of them and at least one, if there is one. Raises
        ``msgspec.MsgspecError`` if it is damaged."""
        if self.header:
            events = decode_events(self.run, self.events)
        else:
            events = _BEGINNING.decode(self.run)[1]
        if cursor:
            events = [event for event in events if event.seq > cursor]
        if len(self.run) > limit_bytes:
            del events[max(1, self.events * limit_bytes // len(self.run)) :]
        return events


_ENCODER = msgspec.msgpack.Encoder()
_WHOLES = msgspec.msgpack.Decoder(list[Whole])


class Pack(NamedTuple):
    """Logs of one tenant, to be kept equally long, as ``packs`` has them; field for column. ``size``: the sum of
    theirs; ``ended_at``: of the last that ended; ``body``: see :func:`unpack`."""

    tenant: str
    first_n: int
    last_n: int
    logs: int
    size: int
    ended_at: float
    body: bytes


# What a commit does for every log of thousands a second is done by these, without a step of the interpreter.
_N = attrgetter("n")
_KIND = attrgetter("tenant", "keep_s")
_ENDED_AT = attrgetter("ended_at")
_HEADER_OF = attrgetter("header")
_RUN_OF = attrgetter("run")


def packs(logs: Collection[Whole]) -> Iterator[tuple[Pack, Sequence[Whole]]]:
    """All of these logs in packs; with each what is in it."""
    kinds = {*map(_KIND, logs)}
    for kind in kinds:
        ours = [*logs] if len(kinds) == 1 else [log for log in logs if _KIND(log) == kind]
        ends = [*accumulate(map(len, map(_RUN_OF, ours)))]  # where each would end, if all were one
        first = 0
        while first < len(ours):
            room = PACK_BYTES + (ends[first - 1] if first else 0)
            last = min(max(bisect_right(ends, room), first + 1), first + PACK_LOGS)
            members = ours[first:last]
            yield packed(members), members
            first = last


def packed(logs: Sequence[Whole]) -> Pack:
    """At least one log, all of one tenant and kept equally long."""
    return Pack(
        logs[0].tenant,
        min(map(_N, logs)),
        max(map(_N, logs)),
        len(logs),
        sum(map(len, map(_HEADER_OF, logs))) + sum(map(len, map(_RUN_OF, logs))),
        max(map(_ENDED_AT, logs)),
        _ENCODER.encode(logs),
    )


def unpack(body: bytes) -> list[Whole]:
    """The logs of a pack. Raises ``msgspec.MsgspecError`` if it is damaged."""
    return _WHOLES.decode(body)
