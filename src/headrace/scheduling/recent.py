"""Who asked for how much of late."""

from __future__ import annotations

HALF_LIFE_S = 10.0
MOST = 256
"""Tenants; beyond, those with less are forgotten."""
LIGHT = 1 / 4


class Recent:
    """Weighted tokens that tenants' requests were begun with, of which half is forgotten in ``HALF_LIFE_S``."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, float]] = {}

    def add(self, tenant: str, amount: float, now: float) -> None:
        self._known[tenant] = self._now(tenant, now) + amount, now
        if len(self._known) > MOST:
            names = sorted(self._known, key=lambda name: self._now(name, now))
            for name in names[: MOST // 2]:
                del self._known[name]

    def is_light(self, tenant: str, amount: float, now: float, runs: float = 0.0) -> bool:
        """Whether with so much more it has a quarter at most of what another had, who has ``runs`` beside that."""
        most = max((self._now(name, now) for name in self._known if name != tenant), default=0.0)
        return self._now(tenant, now) + amount <= LIGHT * (most + runs)

    def _now(self, tenant: str, now: float) -> float:
        amount, at = self._known.get(tenant, (0.0, now))
        kept: float = 0.5 ** (max(now - at, 0.0) / HALF_LIFE_S)
        return amount * kept
