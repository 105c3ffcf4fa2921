"""Whether a row that failed is tried again, and when."""

from __future__ import annotations

from headrace.domain.errors import Code, HeadraceError

MOST_TRIES = 6
"""Of a row whose engine failed at it; what has not to do with the row itself is not counted."""
FIRST_S = 0.5
LONGEST_S = 60.0
MOST_TOLD_S = 3600.0
"""Whoever is told to come again later than that, by an upstream say, asks again before."""

BUSY = frozenset(
    (
        Code.RATE_LIMITED,
        Code.CONCURRENCY_LIMIT,
        Code.QUEUE_FULL,
        Code.QUEUE_TIMEOUT,
        Code.TOO_MANY_CONNECTIONS,
        Code.MODEL_LOADING,
        Code.ENGINE_UNAVAILABLE,
        Code.SHUTTING_DOWN,
        Code.STORE_FAILED,
    )
)
"""There is no room for it now, whatever it is: it waits as long as its job may."""


class Tries:
    """Of one row."""

    def __init__(self) -> None:
        self._failures = 0
        self._waits = 0

    def next_s(self, error: HeadraceError, chance: float) -> float | None:
        """After how many seconds it is tried again; None: the error stays. ``chance``: 0 to 1, so that not all rows
        come back at once."""
        if not error.meaning.retryable and error.code is not Code.GENERATION_TIMEOUT:
            return None  # but for who was paused for so long that its time was over
        self._waits += 1
        if error.code not in BUSY:
            self._failures += 1
            if self._failures >= MOST_TRIES:
                return None
        pause_s: float = min(FIRST_S * 2 ** (min(self._waits, 16) - 1), LONGEST_S)
        told_s = min(error.retry_after_s or 0.0, MOST_TOLD_S)
        return max(told_s, pause_s * (0.5 + chance / 2))
