"""How much load a trace is: its requests at a multiple of what an engine can serve."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.engine import Engine, Simulation
from headrace.scheduling.policies import policy


def capacity_s(arrivals: Sequence[Arrival], engine: Engine) -> float:
    """How long the engine needs for all of them if they come at once, first come, first served."""
    at_once = [msgspec.structs.replace(arrival, at=0.0) for arrival in arrivals]
    return max(served.ended_at for served in Simulation(engine, policy("fcfs")).run(at_once))


def at_load(arrivals: Sequence[Arrival], needed_s: float, load: float) -> list[Arrival]:
    """The same requests, all gaps between them stretched alike, so that they come within ``needed_s / load``."""
    stretch = needed_s / load / arrivals[-1].at
    return [msgspec.structs.replace(arrival, at=arrival.at * stretch) for arrival in arrivals]
