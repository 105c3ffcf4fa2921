"""What a key, a tenant or a model may use: a plain value, as it stands in settings and with a created key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

_LIVE = {"live": True}
_MOST = 10**15
"""Beyond any use, and still exact where it is counted in floats."""


class Limits(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """What a key, a tenant or a model may use; what is not set has no limit."""

    requests_per_minute: (
        Annotated[
            int,
            Meta(
                description="Requests; set it where one client must not take all connections.",
                extra=_LIVE,
                ge=1,
                le=_MOST,
            ),
        ]
        | None
    ) = None
    tokens_per_minute: (
        Annotated[
            int,
            Meta(
                description="Tokens of prompts and answers; set it to the share of the machine that was sold.",
                extra=_LIVE,
                ge=1,
                le=_MOST,
            ),
        ]
        | None
    ) = None
    tokens_per_day: (
        Annotated[
            int,
            Meta(
                description="The same from midnight to midnight, UTC; set it where a bill must have an end.",
                extra=_LIVE,
                ge=1,
                le=_MOST,
            ),
        ]
        | None
    ) = None
    concurrent: (
        Annotated[
            int,
            Meta(
                description="Generations at once, waiting ones too; set it where they hold slots for long.",
                extra=_LIVE,
                ge=1,
                le=_MOST,
            ),
        ]
        | None
    ) = None
    pace: (
        Annotated[
            float,
            Meta(
                description="Tokens a second of one answer; set it where faster ones are sold.",
                extra=_LIVE,
                gt=0,
                le=1e9,
            ),
        ]
        | None
    ) = None
    burst_s: Annotated[
        float,
        Meta(
            description="Seconds' worth of the limits per minute that may be used at once; lower it to smooth load.",
            extra=_LIVE,
            gt=0,
            le=86_400,
        ),
    ] = 60.0

    @property
    def some(self) -> bool:
        """Whether there is any limit in it."""
        return any(getattr(self, name) is not None for name in _AMOUNTS)

    def burst(self, per_minute: int) -> float:
        """How much of a limit per minute may be used at once."""
        return per_minute * self.burst_s / 60.0


class ModelLimits(Limits, frozen=True, kw_only=True):
    """What a tenant may use of one model."""

    model: Annotated[
        str, Meta(description="The model's name, or an alias.", extra=_LIVE, min_length=1)
    ]


class LimitedModel(NamedTuple):
    """A model by its own name, and what all tenants together may use of it."""

    name: str
    limits: Limits


class Contradiction(NamedTuple):
    """``field``: of the limits that cannot be. ``why``: what is wrong with it, behind its name."""

    field: str
    why: str


_AMOUNTS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent", "pace")


def contradiction(limits: Limits) -> Contradiction | None:
    """The first limit that another one of the same limits makes impossible or void; None if there is none."""
    requests, tokens, day = (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.tokens_per_day,
    )
    for per_minute, what in ((requests, "request"), (tokens, "token")):
        if per_minute is not None and limits.burst(per_minute) < 1:
            why = f"lets less than one {what} through at once, so none ever; it must be at least"
            return Contradiction("burst_s", f"{why} {60 / per_minute:g} here")
    if requests is None and tokens is None and limits.burst_s != 60.0:
        return Contradiction("burst_s", "is of no use without a limit per minute")
    if tokens is not None and day is not None:
        if tokens > day:
            return Contradiction(
                "tokens_per_day", f"must be ≥ tokens_per_minute, which is {tokens}"
            )
        if limits.burst(tokens) > day:
            why = f"must be ≥ what tokens_per_minute lets through at once, which is {limits.burst(tokens):g}"
            return Contradiction("tokens_per_day", why)
    return None


def beyond(inner: Limits, outer: Limits, whose: str) -> Contradiction | None:
    """The first of the inner limits that promises more than the outer ones, which hold for it too; None if
    there is none. ``whose``: the outer ones, in words."""
    for name in _AMOUNTS:
        mine, theirs = getattr(inner, name), getattr(outer, name)
        if mine is not None and theirs is not None and mine > theirs:
            return Contradiction(name, f"must be ≤ that of {whose}, which is {theirs:g}")
    tokens, day = inner.tokens_per_minute, outer.tokens_per_day
    if tokens is not None and day is not None and max(tokens, inner.burst(tokens)) > day:
        why = f"lets more through in a minute than tokens_per_day of {whose}, which is {day}"
        return Contradiction("tokens_per_minute", why)
    return None


def contradiction_at_models(
    several: Sequence[ModelLimits], tenant: Limits, models: Mapping[str, LimitedModel]
) -> tuple[int, Contradiction] | None:
    """The first of a tenant's limits at single models that cannot be, and which of them has it; None if there is
    none. ``tenant``: what it may use altogether. ``models``: by their names and aliases."""
    seen: set[str] = set()
    for index, limits in enumerate(several):
        model = models.get(limits.model)
        if model is None:
            return index, Contradiction("model", f"names {limits.model[:80]}, which is no model")
        if model.name in seen:
            return index, Contradiction("model", f"names {model.name}, which has limits already")
        seen.add(model.name)
        wrong = (
            contradiction(limits)
            or beyond(limits, tenant, "the tenant")
            or beyond(limits, model.limits, f"the model {model.name}")
        )
        if wrong is not None:
            return index, wrong
    return None
