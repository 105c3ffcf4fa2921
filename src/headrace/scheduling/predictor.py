"""When will its first token come? Learnt from the first tokens that came."""

from __future__ import annotations

from math import inf, nan

from headrace.scheduling.policy import Ticket, tokens, uncached

PRIOR = 0.05, 0.2, 0.2
"""Seconds at once, per 1,000 uncached prompt tokens, per 1,000 prompt tokens ahead of it: until it knows."""

MOST = 60.0, 60.0, 60.0
"""Of each: more is a fault, not a speed."""

FORGETTING = 0.98
"""Weight of what was known before an observation: about the last fifty count."""

UNSURE = 100.0
"""Variance of the prior, and the most that it may grow to while observations teach nothing."""

LESSON_S = 0.1
"""Of several first tokens within that, one is learnt from."""

REPLICAS = 64
"""Known at once; beyond, the oldest is forgotten."""


class Predictor:
    """First token ≈ a + b · uncached prompt tokens + c · queued prompt tokens, of one replica.

    Recursive least squares with forgetting (Ljung, System Identification, §11.2). ``weights``: a in
    seconds, b and c in seconds per 1,000 tokens, never below 0 or beyond ``MOST``.
    """

    __slots__ = ("_covariance", "weights")

    def __init__(self) -> None:
        self.weights: tuple[float, float, float] = PRIOR
        self._covariance = [[UNSURE, 0.0, 0.0], [0.0, UNSURE, 0.0], [0.0, 0.0, UNSURE]]

    def predict(self, uncached: float, queued: float = 0.0) -> float:
        """Seconds from its beginning to its first token."""
        a, b, c = self.weights
        return a + (b * tokens(uncached) + c * tokens(queued)) / 1e3

    def observe(self, uncached: float, queued: float, took_s: float) -> None:
        """A first token came after ``took_s``; what is no time teaches nothing, an outlier little."""
        if not 0 <= took_s < 1e6:
            return
        expected = self.predict(uncached, queued)
        error = min(took_s - expected, 2 * expected + 1.0)
        x = 1.0, tokens(uncached) / 1e3, tokens(queued) / 1e3
        p = self._covariance
        px = [row[0] * x[0] + row[1] * x[1] + row[2] * x[2] for row in p]
        scale = FORGETTING + x[0] * px[0] + x[1] * px[1] + x[2] * px[2]
        moved = (w + g * error / scale for w, g in zip(self.weights, px, strict=True))
        a, b, c = (min(max(w, 0.0), most) for w, most in zip(moved, MOST, strict=True))
        self.weights = a, b, c
        for i, row in enumerate(p):
            for j in range(3):
                row[j] = (row[j] - px[i] * px[j] / scale) / FORGETTING
        if max(p[0][0], p[1][1], p[2][2]) > UNSURE:
            self._covariance = [
                [min(p[i][i], UNSURE) if i == j else 0.0 for j in range(3)] for i in range(3)
            ]


class _Replica:
    __slots__ = ("ahead", "predictor", "taught_at")

    def __init__(self) -> None:
        self.predictor = Predictor()
        self.ahead = 0.0
        self.taught_at = -inf


class Predictors:
    """One predictor a replica, taught by what runs there. ``ahead_s``: how long a newcomer would be held up by the
    prompts that are under way, in the mean over the replicas."""

    __slots__ = ("_replicas", "_typical", "ahead_s")

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}
        self._typical = PRIOR
        self.ahead_s = 0.0

    def __len__(self) -> int:
        return len(self._replicas)

    def prefill_s(self, size: float) -> float:
        """From its beginning to the first token of a prompt of so many tokens, with none before it: in the mean
        over the replicas."""
        a, b, _ = self._typical
        return a + b * size / 1e3

    def began(self, ticket: Ticket, now: float) -> None:
        """Its prompt is under way."""
        replica = self._replicas.get(ticket.replica)
        if replica is None:
            if len(self._replicas) >= REPLICAS:
                del self._replicas[next(iter(self._replicas))]
            replica = self._replicas[ticket.replica] = _Replica()
        ticket.began_at = now
        ticket.queued = replica.ahead
        ticket.prefilling = uncached(ticket)
        self._moved(replica, ticket.prefilling)

    def first_token(self, ticket: Ticket, now: float) -> None:
        """Its prompt is over; what it took is learnt from, unless much was learnt just now."""
        replica = self._replicas.get(ticket.replica)
        size, ticket.prefilling = ticket.prefilling, 0.0
        took_s, ticket.began_at = now - ticket.began_at, nan
        if replica is None or not took_s >= 0:
            return
        if not 0 <= now - replica.taught_at < LESSON_S:
            replica.taught_at = now
            replica.predictor.observe(size, ticket.queued, took_s)
            known = [one.predictor.weights for one in self._replicas.values()]
            a, b, c = (sum(column) / len(known) for column in zip(*known, strict=True))
            self._typical = a, b, c
        self._moved(replica, -size)

    def ended(self, ticket: Ticket) -> None:
        """If it ended before its first token, its prompt is not under way any more."""
        replica = self._replicas.get(ticket.replica)
        if replica is not None and ticket.prefilling:
            self._moved(replica, -ticket.prefilling)
            ticket.prefilling = 0.0
            ticket.began_at = nan

    def _moved(self, replica: _Replica, size: float) -> None:
        replica.ahead = max(replica.ahead + size, 0.0)
        replicas = self._replicas.values()
        total = sum(one.ahead * one.predictor.weights[2] for one in replicas)
        self.ahead_s = total / len(replicas) / 1e3
