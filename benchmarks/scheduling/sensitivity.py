"""What becomes of fair-headroom with other settings, and when what it is told or has learnt is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from benchmarks import table
from benchmarks.scheduling import a10g, overload
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.engine import Engine, Lengths, Served, Simulation, as_counted
from benchmarks.scheduling.engines import A10G, H100
from benchmarks.scheduling.load import at_load, capacity_s
from benchmarks.scheduling.outcome import Outcome, outcome, spread
from benchmarks.scheduling.tenants import jittered, with_targets
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.policy import Ticket

MIX, LOAD = "servegen-mix", 1.5
HEAD = (
    "fair-headroom",
    "LMSYS: in time",
    "mean of tenants",
    "longest wait s",
    f"{MIX} {LOAD:g}×: in time",
    "mean of tenants",
    "longest wait s",
)


class Misled(FairHeadroom):
    """Believes that every prefill took so many times as long as it did."""

    __slots__ = ("_began", "_factor")

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor
        self._began: dict[str, float] = {}

    def began(self, ticket: Ticket, now: float) -> None:
        self._began[ticket.id] = now
        super().began(ticket, now)

    def first_token(self, ticket: Ticket, now: float) -> None:
        began = self._began.pop(ticket.id)
        super().first_token(ticket, began + self._factor * (now - began))


class Variant(msgspec.Struct, frozen=True):
    """A policy, and what it is told of requests."""

    name: str
    make: Callable[[], FairHeadroom] = FairHeadroom
    told: Callable[[Arrival], Lengths] = as_counted

    def run(self, engine: Engine, arrivals: Sequence[Arrival]) -> list[Served]:
        return Simulation(engine, self.make(), told=self.told).run(arrivals)


def with_setting(key: str, value: float) -> Variant:
    settings: Mapping[str, Any] = {key: value}
    return Variant(f"{key} = {value:g}", partial(FairHeadroom, **settings))


def miscounted(arrival: Arrival) -> Lengths:
    """The prompt as half to twice of what it is."""
    factor = 2 ** Random(repr(arrival)).uniform(-1, 1)
    return max(1, round(arrival.prompt_tokens * factor)), 256


VARIANTS = (
    Variant("as it is"),
    *(with_setting("headroom_s", value) for value in (1, 2, 4, 6, 12)),
    *(with_setting("headroom", value) for value in (0, 1_000, 3_000, 10_000, 30_000)),
    *(with_setting("rescue_after", value) for value in (4, 8, 20, 1_000)),
    *(with_setting("rescue_rate", value) for value in (1, 2, 6)),
    *(with_setting("pressed", value) for value in (0, 0.25, 1)),
    *(
        Variant(f"prefill believed {factor:g}×", partial(Misled, factor))
        for factor in (0.5, 2.0, 10.0)
    ),
    Variant("prompts miscounted, ½ to 2×", told=miscounted),
    Variant("outputs expected at ¼", told=lambda a: (a.prompt_tokens, a.output_tokens // 4)),
    Variant("outputs expected at 4×", told=lambda a: (a.prompt_tokens, a.output_tokens * 4)),
)


def compare(data: Path) -> None:
    """Each variant on the measured trace and on the mix of many tenants."""
    lmsys = [jittered(a10g.trace(data), seed) for seed in range(a10g.REPEATS)]
    mix = with_targets(overload.TRACES[MIX](data), overload.TARGETS_S)
    mix = at_load(mix, capacity_s(mix, H100), LOAD)
    rows = []
    for variant in VARIANTS:
        first = [outcome(variant.run(A10G, arrivals)) for arrivals in lmsys]
        second = [outcome(variant.run(H100, mix))]
        rows.append((variant.name, *_figures(first), *_figures(second)))
    table.show("Settings and errors", HEAD, rows, json_too=rows)


def _figures(outcomes: Sequence[Outcome]) -> tuple[str, str, str]:
    return (
        spread(outcomes, "attainment", 3),
        spread(outcomes, "tenants_mean", 3),
        spread(outcomes, "longest_s", 0),
    )
