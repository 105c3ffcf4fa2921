"""How much work without use a client may cause: a bucket that empties slowly."""

from __future__ import annotations

BURST = 1000.0
PER_S = 100.0


class Strain:
    """For HTTP/2 frames that cost and bring nothing: resets (CVE-2023-44487), pings, settings, empty data
    (CVE-2019-9512, -9515, -9518), window updates without data to send, and what is unknown."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = BURST
        self._at = now

    def take(self, cost: int, now: float) -> bool:
        """Whether there was room for ``cost`` more (negative: earned). ``now`` in seconds."""
        self._left = min(BURST, self._left + (now - self._at) * PER_S - cost)
        self._at = now
        return self._left >= 0.0
