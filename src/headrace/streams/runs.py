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

    __slots__ = ("_body", "_next", "_seqs", "_starts", "size")

    def __init__(self, next_seq: int = 1) -> None:
        self._body = bytearray()
        self.size = 0
        self._next = next_seq
        self._seqs = array("I", (next_seq,))
        self._starts = array("I", (0,))

    def __len__(self) -> int:
        """Bytes of encoded events; ``size`` says the same at once."""
        return self.size

    @property
    def last_seq(self) -> int:
        return self._seqs[-1] - 1

    def holds(self, seq: int) -> bool:
        """Whether this event is here."""
        return self._seqs[0] <= seq < self._seqs[-1]

    def add(self, events: Sequence[Event]) -> None:
        """The next events, consecutive to those before."""
        self.add_run(encode_run(events), len(events))

    def add_run(self, run: bytes, count: int) -> None:
        """The next ``count`` events, encoded already."""
        self._body += run
        self.size = size = self.size + len(run)
        self._next += count
        self._seqs.append(self._next)
        self._starts.append(size)

    def after(self, cursor: int, limit_bytes: int) -> list[Event]:
        """Events after ``cursor``, about ``limit_bytes`` of them and at least one run; none if the next
        one is not here."""
        seqs, starts = self._seqs, self._starts
        if not self.holds(cursor + 1):
            return []
        first = bisect_right(seqs, cursor + 1) - 1
        end = self._fitting(first, limit_bytes)
        with memoryview(self._body) as body, body[starts[first] : starts[end]] as run:
            events = decode_events(run, seqs[end] - seqs[first])
        return events[cursor + 1 - seqs[first] :]

    def pieces(self, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        """Everything as ``(first seq, count, run)``, each about ``limit_bytes`` or one run if that is larger."""
        seqs, starts, body = self._seqs, self._starts, self._body
        first, last = 0, len(seqs) - 1
        if 0 < len(body) <= limit_bytes:  # nearly always
            return [(seqs[0], seqs[last] - seqs[0], bytes(body))]
        found = []
        while first < last:
            end = self._fitting(first, limit_bytes)
            run = bytes(body[starts[first] : starts[end]])
            found.append((seqs[first], seqs[end] - seqs[first], run))
            first = end
        return found

    def join(self, later: Runs) -> None:
        """Take over the events that follow these."""
        for _, count, run in later.pieces(0):
            self.add_run(run, count)

    def _fitting(self, first: int, limit_bytes: int) -> int:
        """The run before which a piece of at most ``limit_bytes`` that starts at run ``first`` ends."""
        starts = self._starts
        return max(bisect_right(starts, starts[first] + limit_bytes) - 1, first + 1)
