"""When will its first token come? Learnt from the first tokens that came."""

from __future__ import annotations

from math import inf, nan

from headrace.scheduling.policy import Ticket, tokens

PRIOR = 0.05, 0.2, 0.2
"""Seconds at once, per 1,000 uncached prompt tokens, per 1,000 prompt tokens ahead of it: until it knows."""

MOST = 60.0, 60.0, 60.0
"""Of each: more is a fault, not a speed."""

FORGETTING = 0.98
"""Weight of what was known before an observation: about the last fifty count."""

UNSURE = 100.0
"""Variance of the prior, and the most that it may grow to while observations teach nothing."""

LESSON_S = 0.25
"""Of several first tokens within that, one is learnt from."""

STALE_S = 30.0
"""What a replica was slow with so long ago says little of now, and who is kept away by it never teaches another."""

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
        self._covariance = UNSURE, 0.0, 0.0, UNSURE, 0.0, UNSURE
        """Upper triangle, by rows: it is symmetric."""

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
        y, z = tokens(uncached) / 1e3, tokens(queued) / 1e3
        aa, ab, ac, bb, bc, cc = self._covariance
        pa = aa + ab * y + ac * z
        pb = ab + bb * y + bc * z
        pc = ac + bc * y + cc * z
        scale = FORGETTING + pa + pb * y + pc * z
        a, b, c = self.weights
        step = error / scale
        self.weights = (
            min(max(a + pa * step, 0.0), MOST[0]),
            min(max(b + pb * step, 0.0), MOST[1]),
            min(max(c + pc * step, 0.0), MOST[2]),
        )
        aa = (aa - pa * pa / scale) / FORGETTING
        bb = (bb - pb * pb / scale) / FORGETTING
        cc = (cc - pc * pc / scale) / FORGETTING
        if aa > UNSURE or bb > UNSURE or cc > UNSURE:
            self._covariance = min(aa, UNSURE), 0.0, 0.0, min(bb, UNSURE), 0.0, min(cc, UNSURE)
        else:
            self._covariance = (
                *(aa, (ab - pa * pb / scale) / FORGETTING, (ac - pa * pc / scale) / FORGETTING),
                *(bb, (bc - pb * pc / scale) / FORGETTING, cc),
            )


class _Replica:
    __slots__ = ("ahead", "predictor", "taught_at", "token_s")

    def __init__(self) -> None:
        self.predictor = Predictor()
        self.ahead = 0.0
        self.token_s = 0.0
        """What a token under way here holds a newcomer up, in the mean over the replicas."""
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

    def sooner_s(self, size: float, replica: str, now: float) -> float:
        """How much less than :meth:`prefill_s` it is at this one, as far as that is known of late."""
        known = self._replicas.get(replica)
        fresh = known is not None and 0 <= now - known.taught_at < STALE_S
        a, b, _ = known.predictor.weights if known is not None and fresh else PRIOR
        return self.prefill_s(size) - a - b * size / 1e3

    def began(self, ticket: Ticket, now: float) -> None:
        """Its prompt is under way, as far as anybody will know."""
        if ticket.begun or ticket.silent:
            return
        replica = self._replicas.get(ticket.replica)
        if replica is None:
            if len(self._replicas) >= REPLICAS:
                del self._replicas[next(iter(self._replicas))]
            replica = self._replicas[ticket.replica] = _Replica()
            self._count()
        ticket.began_at = now
        ticket.queued = ahead = replica.ahead
        ticket.prefilling = size = ticket.size
        replica.ahead = ahead + size
        self.ahead_s += size * replica.token_s

    def first_token(self, ticket: Ticket, now: float) -> None:
        """Its prompt is over; what it took is learnt from, unless much was learnt just now."""
        replica = self._replicas.get(ticket.replica)
        size, ticket.prefilling = ticket.prefilling, 0.0
        took_s, ticket.began_at = now - ticket.began_at, nan
        if replica is None:
            return
        if took_s >= 0 and not 0 <= now - replica.taught_at < LESSON_S:
            replica.taught_at = now
            replica.predictor.observe(size, ticket.queued, took_s)
            self._count()
        self._over(replica, size)

    def ended(self, ticket: Ticket) -> None:
        """If it ended before its first token, its prompt is not under way any more."""
        replica = self._replicas.get(ticket.replica)
        if replica is not None and ticket.prefilling:
            self._over(replica, ticket.prefilling)
            ticket.prefilling = 0.0
            ticket.began_at = nan

    def _over(self, replica: _Replica, size: float) -> None:
        ahead = replica.ahead - size
        if ahead <= 0:
            size, ahead = replica.ahead, 0.0
        replica.ahead = ahead
        self.ahead_s -= size * replica.token_s

    def _count(self) -> None:
        """Others have come, or another speed: all of them anew."""
        known = self._replicas.values()
        weights = zip(*(one.predictor.weights for one in known), strict=True)
        a, b, c = (sum(column) / len(known) for column in weights)
        self._typical = a, b, c
        self.ahead_s = 0.0
        for one in known:
            one.token_s = one.predictor.weights[2] / 1e3 / len(known)
            self.ahead_s += one.ahead * one.token_s
