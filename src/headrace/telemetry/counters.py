"""What is counted of one operation of one model: plain numbers, with what a token and a request cost kept small.

Every method is called on the event loop thread; the numbers are read from any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from headrace.domain.event import Usage
from headrace.telemetry.attainment import Attainment
from headrace.telemetry.histogram import (
    BOTH_REQUEST_S,
    GEN_AI_REQUEST_S,
    INTER_TOKEN_S,
    REQUEST_S,
    TIME_TO_FIRST_TOKEN_S,
    Exemplar,
    Histogram,
)
from headrace.telemetry.tokens import TokenCounts

CountError = Callable[[str, str], None]
"""Takes an error's code and message."""


class Counters:
    """``failures``: how long those took that ended with an error, by its code. ``shorter``, ``longer``: by how much
    waits were so than had been foreseen."""

    __slots__ = (
        "_count_error",
        "admitted_count",
        "attainment",
        "e2e",
        "failed_tokens",
        "failures",
        "first",
        "gap",
        "longer",
        "queue",
        "reasons",
        "shorter",
        "token_batches",
        "tokens_used",
    )

    def __init__(self, count_error: CountError) -> None:
        self._count_error = count_error
        self.admitted_count = 0
        self.attainment = Attainment()
        self.tokens_used = TokenCounts()
        self.failed_tokens = 0
        self.token_batches = 0
        self.queue = Histogram(REQUEST_S)
        self.first = Histogram(TIME_TO_FIRST_TOKEN_S)
        self.gap = Histogram(INTER_TOKEN_S)
        self.e2e = Histogram(BOTH_REQUEST_S)
        self.shorter = Histogram(REQUEST_S)
        self.longer = Histogram(REQUEST_S)
        self.failures: dict[str, Histogram] = {}
        self.reasons: dict[str, int] = {}

    def exemplify(self, exemplar: Exemplar, **values_s: float | None) -> None:
        """Lead from the buckets of these values (``first=0.2`` …) to a trace."""
        for name, value_s in values_s.items():
            if value_s is not None:
                histogram: Histogram = getattr(self, name)
                histogram.exemplify(exemplar._replace(value=value_s))

    # Observed without a call each: these are on the way of every request.

    def started(self, queue_s: float) -> None:
        queue = self.queue
        queue.counts[bisect_left(REQUEST_S, queue_s)] += 1
        queue.total_s += queue_s

    def waited(self, foreseen_s: float, really_s: float) -> None:
        """One that stood in the queue has a slot; how long that would take had been told."""
        error_s = really_s - foreseen_s
        if error_s < 0:
            self.shorter.observe(-error_s)
        else:
            self.longer.observe(error_s)

    def first_token(self, after_s: float) -> None:
        """``after_s``: from admission to the first visible token."""
        first = self.first
        first.counts[bisect_left(TIME_TO_FIRST_TOKEN_S, after_s)] += 1
        first.total_s += after_s

    def tokens(self, count: int, gap_s: float) -> None:
        """``count`` tokens became visible together, ``gap_s`` after the ones before them."""
        if gap_s < 0:  # the clock was set
            gap_s = 0.0
        gap = self.gap
        gap.counts[bisect_left(INTER_TOKEN_S, gap_s / count)] += count
        gap.total_s += gap_s
        self.token_batches += 1

    def finished(self, reason: str, e2e_s: float, usage: Usage) -> None:
        """A generation ended well, with the usage that its ``finish`` event says."""
        e2e, reasons = self.e2e, self.reasons
        e2e.counts[bisect_left(BOTH_REQUEST_S, e2e_s)] += 1
        e2e.total_s += e2e_s
        self.tokens_used.note(usage)
        reasons[reason] = reasons.get(reason, 0) + 1

    def target(self, tenant: str, target: str, met: bool) -> None:
        """A generation of this tenant that had this target (``ttft``, ``tpot``) ended."""
        self.attainment.count(tenant, target, met)

    def failed(
        self,
        code: str,
        message: str = "",
        completion_tokens: int = 0,
        e2e_s: float | None = None,
    ) -> None:
        """A generation ended with ``error``, after ``completion_tokens`` were delivered."""
        self.failed_tokens += completion_tokens
        if e2e_s is not None:
            failures = self.failures
            if code not in failures:
                failures[code] = Histogram(GEN_AI_REQUEST_S)
            failures[code].observe(e2e_s)
        self._count_error(code, message)
