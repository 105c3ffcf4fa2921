"""A tenant: who pays, and what it was promised."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from headrace.domain.limits import Limits, ModelLimits

Level = Literal["interactive", "standard", "batch"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The highest first."""
Overflow = Literal["reject", "wait", "shed", "spill"]

NAME = r"^[A-Za-z0-9_.-]{1,64}$"
"""A tenant's name: it stands in paths, in log lines and in the labels of metrics."""
TenantName = Annotated[str, Meta(pattern=NAME)]

_Target = Annotated[float, Meta(gt=0, le=3_600_000)]


class TenantTerms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a tenant was promised.

    ``weight``: its share among the tenants of its ``level``, the priority class; with 0 it is served when nobody else
    waits. ``ttft_ms``, ``tpot_ms``: targets of the time to first token and per output token. ``overflow``: what
    becomes of its request when a queue is full. ``sheddable``: whether its waiting requests may give way.
    ``limits``: what it may use, ``model_limits``: of single models."""

    weight: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    level: Level = "standard"
    ttft_ms: _Target | None = None
    tpot_ms: _Target | None = None
    overflow: Overflow = "reject"
    sheddable: bool = False
    limits: Limits = Limits()
    model_limits: tuple[ModelLimits, ...] = ()


class Tenant(TenantTerms, frozen=True, kw_only=True, gc=False):
    """A tenant with its terms."""

    name: TenantName

    @property
    def ttft_s(self) -> float | None:
        return None if self.ttft_ms is None else self.ttft_ms / 1000

    @property
    def tpot_s(self) -> float | None:
        return None if self.tpot_ms is None else self.tpot_ms / 1000
