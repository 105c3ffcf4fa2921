"""Policies by name, as settings give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.scheduling.fair import Fair
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.fcfs import Fcfs
from headrace.scheduling.policy import Policy

POLICIES: Mapping[str, Callable[..., Policy]] = {
    one.name: one for one in (Fcfs, Fair, FairHeadroom)
}


def policy(name: str, **settings: Any) -> Policy:
    """A new one. Raises ``ValueError`` that begins with the key which is unknown or contradicts others."""
    make = POLICIES.get(name)
    if make is None:
        raise ValueError(f"policy: {name!r} is none of {', '.join(POLICIES)}")
    return make(**settings)
