"""Other traces on a larger engine, with two targets, from what it can just serve to three times as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.contenders import CONTENDERS
from benchmarks.scheduling.engines import H100
from benchmarks.scheduling.load import at_load, capacity_s
from benchmarks.scheduling.outcome import outcome
from benchmarks.scheduling.servegen import servegen
from benchmarks.scheduling.tenants import shared_out, with_targets
from benchmarks.scheduling.traces import azure, mooncake

TARGETS_S = 5.0, 60.0
LOADS = 1.0, 1.5, 3.0
MIX_REQUESTS = 12_000
HEAD = (
    "trace",
    "load",
    "policy",
    "in time",
    "mean of tenants",
    "worst tenant",
    "longest wait s",
    "tokens/s",
)

TRACES: Mapping[str, Callable[[Path], Sequence[Arrival]]] = {
    "azure-conv": lambda data: shared_out(azure(data, "conv")),
    "azure-code": lambda data: shared_out(azure(data, "code")),
    "mooncake-conversation": lambda data: shared_out(mooncake(data, "conversation")),
    "mooncake-synthetic": lambda data: shared_out(mooncake(data, "synthetic")),
    "servegen-mix": lambda data: servegen(
        data, "m-large", MIX_REQUESTS, (azure(data, "conv"), azure(data, "code"))
    ),
}


def compare(data: Path, names: Sequence[str]) -> None:
    """All policies on the traces of these names, at each load."""
    rows = []
    for name in names:
        arrivals = with_targets(TRACES[name](data), TARGETS_S)
        needed_s = capacity_s(arrivals, H100)
        for load in LOADS:
            scaled = at_load(arrivals, needed_s, load)
            for contender in CONTENDERS:
                one = outcome(contender.run(H100, scaled))
                rows.append(
                    (
                        name,
                        f"{load:g}×",
                        contender.name,
                        f"{one.attainment:.3f}",
                        f"{one.tenants_mean:.3f}",
                        f"{one.tenants_worst:.3f}",
                        f"{one.longest_s:.0f}",
                        f"{one.throughput:.0f}",
                    )
                )
    title = f"{H100.name}, targets {' and '.join(f'{one:.0f} s' for one in TARGETS_S)}"
    table.show(title, HEAD, rows, json_too=rows)
