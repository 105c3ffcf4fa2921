"""The trace that was measured: does the model agree with the GPU, and what do the policies come to?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import table
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.contenders import CONTENDERS, ours
from benchmarks.scheduling.engine import Served
from benchmarks.scheduling.engines import A10G
from benchmarks.scheduling.outcome import outcome, spread
from benchmarks.scheduling.tenants import jittered, with_targets
from benchmarks.scheduling.traces import Measured, measured_a10g, vtc

TARGET_S = 10.0
MEASURED = {"fcfs": "FCFS", "fair": "VTC"}
"""Our policy and the authors' scheduler that it has to agree with."""

TOLERANCE = 0.10
COMPARED = ("makespan_s", "mean_s", "p99_s", "attainment")
HEAD = ("policy", "in time", "mean of tenants", "worst tenant", "longest wait s", "tokens/s")
REPEATS = 8
"""Runs with arrivals moved a little: the order of a few requests changes all that follow."""


def trace(data: Path) -> list[Arrival]:
    return with_targets(vtc(data), (TARGET_S,))


def check(data: Path) -> bool:
    """Compare the model with what was measured; whether all figures agree within the tolerance."""
    arrivals = trace(data)
    rows, agrees = [], True
    for name, scheduler in MEASURED.items():
        simulated = outcome(ours(name).run(A10G, arrivals))
        measured = outcome(_as_served(arrivals, measured_a10g(data, scheduler)))
        for key in COMPARED:
            ours_, theirs = getattr(simulated, key), getattr(measured, key)
            difference = ours_ / theirs - 1
            agrees = agrees and abs(difference) <= TOLERANCE
            rows.append((f"{name} {key}", f"{theirs:.3f}", f"{ours_:.3f}", f"{difference:+.1%}"))
    table.show("Model and GPU", ("", "measured", "simulated", "difference"), rows, json_too=rows)
    return agrees


def compare(data: Path) -> None:
    """All policies on that trace; below each figure's mean the range over the repeats."""
    arrivals = trace(data)
    rows = []
    for contender in CONTENDERS:
        outcomes = [
            outcome(contender.run(A10G, jittered(arrivals, seed))) for seed in range(REPEATS)
        ]
        rows.append([contender.name, *(spread(outcomes, key, places) for key, places in FIGURES)])
    title = f"LMSYS trace on an A10G, target {TARGET_S:.0f} s; mean [least, most] of {REPEATS} runs"
    table.show(title, HEAD, rows, json_too=rows)


FIGURES = (
    ("attainment", 3),
    ("tenants_mean", 3),
    ("tenants_worst", 3),
    ("longest_s", 0),
    ("throughput", 0),
)


def _as_served(arrivals: Sequence[Arrival], measured: Sequence[Measured]) -> list[Served]:
    return [
        Served(
            msgspec.structs.replace(arrival, at=one.at),
            first_token_at=one.at + one.first_token_s,
            ended_at=one.at + one.latency_s,
        )
        for arrival, one in zip(arrivals, measured, strict=True)
    ]
