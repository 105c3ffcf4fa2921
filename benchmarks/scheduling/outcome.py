"""What a run comes to: the figures of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from benchmarks.scheduling.engine import Served


class Outcome(msgspec.Struct, frozen=True):
    """``attainment``: share of requests whose first token came in time; ``tenants_mean`` of the tenants'
    attainments, ``tenants_worst`` the least. Times in seconds; throughput in tokens a second, prompts included."""

    attainment: float
    tenants_mean: float
    tenants_worst: float
    mean_s: float
    p99_s: float
    longest_s: float
    makespan_s: float
    throughput: float


def outcome(served: Sequence[Served]) -> Outcome:
    waits = sorted(one.first_token_s for one in served)
    tenants: dict[str, list[bool]] = {}
    for one in served:
        in_time = one.first_token_s <= one.arrival.target_s
        tenants.setdefault(one.arrival.tenant, []).append(in_time)
    shares = [sum(times) / len(times) for times in tenants.values()]
    makespan_s = max(one.ended_at for one in served)
    tokens = sum(one.arrival.prompt_tokens + one.arrival.output_tokens for one in served)
    return Outcome(
        attainment=sum(map(sum, tenants.values())) / len(served),
        tenants_mean=sum(shares) / len(shares),
        tenants_worst=min(shares),
        mean_s=sum(waits) / len(waits),
        p99_s=waits[int(0.99 * (len(waits) - 1))],
        longest_s=waits[-1],
        makespan_s=makespan_s,
        throughput=tokens / makespan_s,
    )


def spread(outcomes: Sequence[Outcome], key: str, places: int) -> str:
    """The mean of a figure over runs, with the least and the most."""
    values = [getattr(one, key) for one in outcomes]
    mean, least, most = (f"{v:.{places}f}" for v in (fmean(values), min(values), max(values)))
    return mean if least == most else f"{mean} [{least}, {most}]"
