"""Other traces on a larger engine, with two targets, from what it can just serve to three times as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import table
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.contenders import CONTENDERS
from benchmarks.scheduling.engines import H100
from benchmarks.scheduling.load import at_load, capacity_s
from benchmarks.scheduling.outcome import Outcome, outcome
from benchmarks.scheduling.servegen import servegen
from benchmarks.scheduling.tenants import shared_out, with_targets
from benchmarks.scheduling.traces import azure, mooncake

TARGETS_S = 5.0, 60.0
LOADS = 1.0, 1.5, 3.0
MIX_REQUESTS = 12_000
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
    rows, figures = [], []
    for name in names:
        arrivals = with_targets(TRACES[name](data), TARGETS_S)
        needed_s = capacity_s(arrivals, H100)
        for load in LOADS:
            scaled = at_load(arrivals, needed_s, load)
            outcomes = {one.name: outcome(one.run(H100, scaled)) for one in CONTENDERS}
            figures.append((name, load, msgspec.to_builtins(outcomes)))
            throughput = outcomes["fair-headroom"].throughput / outcomes["fcfs"].throughput - 1
            cells = [_cell(one) for one in outcomes.values()]
            rows.append((name, f"{load:g}×", *cells, f"{throughput:+.1%}"))
    title = (
        f"{H100.name}, targets {' and '.join(f'{one:.0f} s' for one in TARGETS_S)}: "
        "in time / mean of tenants / worst tenant / longest wait s"
    )
    head = ("trace", "load", *(one.name for one in CONTENDERS), "tokens/s, fair-headroom to fcfs")
    table.show(title, head, rows, json_too=figures)


def _cell(one: Outcome) -> str:
    shares = (one.attainment, one.tenants_mean, one.tenants_worst)
    return " / ".join(
        (*(f"{share:.3f}".removeprefix("0") for share in shares), f"{one.longest_s:.0f}")
    )
