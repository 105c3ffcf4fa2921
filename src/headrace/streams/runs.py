"""``Runs``: consecutive events of one log in memory, compactly encoded (about 25 bytes a small event)."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from headrace.domain.event import Event
from headrace.streams.encoded import decode_events, encode_run


class Runs:
    """Events from some ``seq`` on. ``_seqs[i]`` is the first ``seq`` of the i-th run, ``_starts[i]`` where
    it starts in ``_body``; both have one entry more, which says where the next run would begin.

    Not bounded by itself: its owner looks at ``len`` (bytes) and forgets.
    """

    __slots__ = ("_body", "_seqs", "_starts")

    def __init__(self, next_seq: int = 1) -> None:
        self._body = bytearray()
        self._seqs = array("I", (next_seq,))
        self._starts = array("I", (0,))

    def __len__(self) -> int:
        """Bytes of encoded events."""
        return len(self._body)

    @property
    def last_seq(self) -> int:
        return self._seqs[-1] - 1

    def holds(self, seq: int) -> bool:
        """Whether this event is here."""
        return self._seqs[0] <= seq < self._seqs[-1]

    def add(self, events: Sequence[Event]) -> None:
        """The next events, consecutive to those before."""
        body = self._body
        body += encode_run(events)
        self._seqs.append(events[-1].seq + 1)
        self._starts.append(len(body))

    def after(self, cursor: int, limit_bytes: int) -> list[Event]:
        """Events after ``cursor``, about ``limit_bytes`` of them and at least one run; none if the next
        one is not here."""
        seqs, starts = self._seqs, self._starts
        if not self.holds(cursor + 1):
            return []
        first = bisect_right(seqs, cursor + 1) - 1
        fitting = bisect_right(starts, starts[first] + limit_bytes) - 1
        end = max(fitting, first + 1)
        with memoryview(self._body) as body, body[starts[first] : starts[end]] as run:
            events = decode_events(run, seqs[end] - seqs[first])
        return events[cursor + 1 - seqs[first] :]

    def forget_older_half(self) -> None:
        """Drop whole runs from the front, at least half of the bytes."""
        starts = self._starts
        cut = min(bisect_right(starts, len(self._body) // 2), len(starts) - 1)
        dropped = starts[cut]
        del self._body[:dropped]
        self._seqs = self._seqs[cut:]
        self._starts = array("I", [start - dropped for start in starts[cut:]])
