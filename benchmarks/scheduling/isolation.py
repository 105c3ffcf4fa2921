"""What one tenant's load does to the others: beside one with ten times the load, and when one of ten grows tenfold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from benchmarks import table
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.contenders import CONTENDERS, Contender
from benchmarks.scheduling.engine import Served
from benchmarks.scheduling.engines import A10G
from benchmarks.scheduling.load import capacity_s
from benchmarks.scheduling.traces import vtc
from headrace.scheduling.fair_headroom import FairHeadroom

TARGETS_S = 10.0, 2.0
DURATION_S = 1_800.0
OTHERS = 9
SHARE = 0.08
"""Of what the engine can serve, by each of ten tenants: together they leave a fifth of it idle."""

PAUSING = Contender("fair-headroom, pausing", FairHeadroom, pauses=True)

HEAD = (
    "policy",
    "light tenant alone: p50 s, p99 s, in time",
    "beside ten times its load",
    "nine tenants beside an equal one",
    "beside one with ten times that",
)


def compare(data: Path) -> None:
    """All policies, with lengths drawn from the LMSYS trace and Poisson arrivals."""
    lengths = vtc(data)
    for target_s in TARGETS_S:
        compare_at(lengths, target_s)


def compare_at(lengths: Sequence[Arrival], target_s: float) -> None:
    """All tenants have the same target."""
    most_rate = len(lengths) / capacity_s(lengths, A10G)
    stream = partial(_stream, target_s, lengths)
    light, heavy = stream("light", 0.1 * most_rate), stream("heavy", most_rate)
    nine = [
        arrival for number in range(OTHERS) for arrival in stream(str(number), SHARE * most_rate)
    ]
    equal, abusive = stream("equal", SHARE * most_rate), stream("abusive", 10 * SHARE * most_rate)
    rows = []
    for contender in (*CONTENDERS, PAUSING):
        runs = [
            contender.run(A10G, sorted(arrivals, key=lambda arrival: arrival.at))
            for arrivals in (light, light + heavy, nine + equal, nine + abusive)
        ]
        alone, beside = (_of(run, "light") for run in runs[:2])
        before, after = (_of(run, *map(str, range(OTHERS))) for run in runs[2:])
        figures = (_figures(waits, target_s) for waits in (alone, beside, before, after))
        rows.append((contender.name, *figures))
    table.show(f"Isolation, {A10G.name}, target {target_s:g} s", HEAD, rows, json_too=rows)


def _stream(target_s: float, lengths: Sequence[Arrival], tenant: str, rate: float) -> list[Arrival]:
    random = Random(tenant)
    arrivals = []
    at = random.expovariate(rate)
    while at < DURATION_S:
        like = random.choice(lengths)
        arrivals.append(
            Arrival(at, tenant, like.prompt_tokens, like.output_tokens, target_s=target_s)
        )
        at += random.expovariate(rate)
    return arrivals


def _of(served: Sequence[Served], *tenants: str) -> list[float]:
    return sorted(one.first_token_s for one in served if one.arrival.tenant in tenants)


def _figures(waits: Sequence[float], target_s: float) -> str:
    in_time = sum(wait <= target_s for wait in waits) / len(waits)
    median, p99 = waits[len(waits) // 2], waits[int(0.99 * (len(waits) - 1))]
    return f"{median:.2f}, {p99:.2f}, {in_time:.3f}"
