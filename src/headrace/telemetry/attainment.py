"""How many generations of which tenant kept their targets."""

from __future__ import annotations

TENANT_LABELS = 100
"""Tenants that are counted by name, of one operation of one model; those that come later count as ``other``."""
OTHER = "other"

Key = tuple[str, str, bool]
"""Tenant, target, whether it was met."""


class Attainment:
    """``counts``: generations that ended and had a target. Written by one thread, read by any."""

    __slots__ = ("_tenants", "counts")

    def __init__(self) -> None:
        self._tenants: set[str] = set()
        self.counts: dict[Key, int] = {}

    def count(self, tenant: str, target: str, met: bool) -> None:
        if tenant not in self._tenants:
            if len(self._tenants) < TENANT_LABELS:
                self._tenants.add(tenant)
            else:
                tenant = OTHER
        key = (tenant, target, met)
        self.counts[key] = self.counts.get(key, 0) + 1
