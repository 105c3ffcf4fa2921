"""Tenants and targets for traces that have none."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from benchmarks.scheduling.arrival import Arrival

JITTER_S = 0.010


def shared_out(arrivals: Sequence[Arrival], tenants: int = 20) -> list[Arrival]:
    """Whole conversations (what has one tenant so far; without tenants each request) go to ``tenants`` new
    tenants, the n-th as likely as 1 / n."""
    random = Random(1)
    names = [str(number) for number in range(tenants)]
    weights = [1 / (number + 1) for number in range(tenants)]
    owners: dict[str, str] = {}
    shared = []
    for arrival in arrivals:
        owner = owners.get(arrival.tenant) if arrival.tenant else None
        if owner is None:
            owner = random.choices(names, weights)[0]
            owners[arrival.tenant] = owner
        shared.append(msgspec.structs.replace(arrival, tenant=owner))
    return shared


def with_targets(arrivals: Sequence[Arrival], targets_s: Sequence[float]) -> list[Arrival]:
    """Each tenant has one of the targets, by turns from the one with most requests to the one with fewest. Where
    there are several, tenants with the least are in the class ``interactive``."""
    counts: dict[str, int] = {}
    for arrival in arrivals:
        counts[arrival.tenant] = counts.get(arrival.tenant, 0) + 1
    by_size = sorted(counts, key=lambda tenant: -counts[tenant])
    targets = {tenant: targets_s[at % len(targets_s)] for at, tenant in enumerate(by_size)}
    interactive = min(targets_s) if len(targets_s) > 1 else 0.0
    return [
        msgspec.structs.replace(
            arrival,
            target_s=targets[arrival.tenant],
            level="interactive" if targets[arrival.tenant] == interactive else "standard",
        )
        for arrival in arrivals
    ]


def jittered(arrivals: Sequence[Arrival], seed: int) -> list[Arrival]:
    """Each moved by up to 10 ms; with seed 0 none is."""
    random = Random(seed)
    most_s = JITTER_S if seed else 0.0
    moved = (
        msgspec.structs.replace(arrival, at=max(0.0, arrival.at + random.uniform(-most_s, most_s)))
        for arrival in arrivals
    )
    return sorted(moved, key=lambda arrival: arrival.at)
