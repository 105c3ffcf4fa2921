"""Ragged inputs of one request in parts: those of a part are of about one length, and are padded to its longest."""

from __future__ import annotations

from bisect import bisect_left


class Buckets:
    """Lengths up to ``longest`` where one part ends. An input that is padded to another of its part becomes padding to
    the share ``waste`` at most, or by less than ``smallest`` elements. Fewer parts make fewer runs of a request, at the
    price of more padding; their number grows with the logarithm of ``longest``."""

    __slots__ = ("lengths",)

    def __init__(self, longest: int, waste: float, smallest: int = 8) -> None:
        """Raises :class:`ValueError` if nothing fits those."""
        if longest < 1 or smallest < 1 or not 0.0 <= waste < 1.0:
            raise ValueError("longest and smallest must be at least 1, waste from 0 to below 1")
        lengths = [min(smallest, longest)]
        while lengths[-1] < longest:
            shortest = lengths[-1] + 1  # that would not fit in the one before
            lengths.append(min(longest, max(shortest, int(shortest / (1.0 - waste)))))
        self.lengths = tuple(lengths)

    def length(self, count: int) -> int:
        """Where the part of an input of so many elements ends. Raises :class:`ValueError` beyond the longest."""
        at = bisect_left(self.lengths, count)
        if at == len(self.lengths):
            raise ValueError(f"{count} elements are more than {self.lengths[-1]}")
        return self.lengths[at]
