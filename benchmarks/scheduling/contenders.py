"""The policies that are compared, made anew for each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.engine import Engine, Scheduler, Served, Simulation
from benchmarks.scheduling.las import LeastAttainedService
from headrace.scheduling.policies import policy


class Contender(msgspec.Struct, frozen=True):
    """``classes``: tenants with a short target are in a higher priority class; without it all are in one. ``pauses``:
    those that run give way."""

    name: str
    make: Callable[[], Scheduler]
    classes: bool = False
    pauses: bool = False

    def run(self, engine: Engine, arrivals: Sequence[Arrival]) -> list[Served]:
        simulation = Simulation(engine, self.make(), classes=self.classes, pauses=self.pauses)
        return simulation.run(arrivals)


def ours(name: str, *, classes: bool = False, **settings: Any) -> Contender:
    """One of ``headrace.scheduling``, named after its settings, if any."""
    title = ", ".join((name, *(f"{key} {value:,}" for key, value in settings.items())))
    return Contender(title, lambda: policy(name, **settings), classes)


CONTENDERS = (
    ours("fcfs"),
    ours("slo-formula"),
    ours("fair"),
    Contender("las", LeastAttainedService),
    ours("edf"),
    ours("priority", classes=True),
    ours("fair-headroom"),
)
