"""Policies by name, as settings give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from headrace.scheduling.edf import Edf
from headrace.scheduling.fair import Fair
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.fcfs import Fcfs
from headrace.scheduling.policy import Policy
from headrace.scheduling.priority import Priority
from headrace.scheduling.slo_formula import SloFormula

POLICIES: Mapping[str, Callable[..., Policy]] = {
    one.name: one for one in (FairHeadroom, Fair, Fcfs, Priority, Edf, SloFormula)
}
"""The first is the default."""


def policy(name: str, /, **settings: Any) -> Policy:
    """A new one. Raises ``ValueError`` that begins with the key which is unknown, impossible or not this policy's."""
    make = POLICIES.get(name)
    if make is None:
        raise ValueError(f"policy: {name!r} is none of {', '.join(POLICIES)}")
    known = signature(make).parameters
    for key in settings:
        if key not in known:
            takes = ", ".join(known) or "no settings"
            raise ValueError(f"{key}: policy {name} does not have it; it takes {takes}")
    return make(**settings)
