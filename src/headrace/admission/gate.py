"""The gate: so many at once."""

from __future__ import annotations

_GAIN = 0.1
_FIRST_GUESS_S = 2.0
_SHORTEST_S = 0.05
_LONGEST_S = 60.0


class Gate:
    """``running``: who is in. It learns how long they stay, to say when one will go."""

    __slots__ = ("_mean_s", "limit", "running", "whose")

    name = "concurrent"

    def __init__(self, whose: str, limit: int) -> None:
        self.whose = whose
        self.limit = limit
        self.running = 0
        self._mean_s = _FIRST_GUESS_S

    def leave(self, took_s: float) -> None:
        self.running -= 1
        if 0.0 <= took_s < 86_400.0:
            self._mean_s += _GAIN * (took_s - self._mean_s)

    def wait_s(self) -> float:
        """Seconds until one of those who are in can be expected to leave."""
        expected = self._mean_s / max(1, self.running)
        return min(max(expected, _SHORTEST_S), _LONGEST_S)
