"""A mix of many tenants made from the clients of ServeGen: their rates and variation, in 10-minute windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from benchmarks.scheduling.arrival import Arrival

WINDOW_S = 600
WINDOWS = 6


def servegen(
    data: Path, pool: str, requests: int, lengths: Sequence[Sequence[Arrival]]
) -> list[Arrival]:
    """The hour of ``pool`` in which most clients are active, thinned to about ``requests``. ServeGen's rates come
    without lengths here: clients take them at random from ``lengths``, two neighbours by size from one, the
    next two from the next."""
    with np.load(data / "traces/servegen/servegen_client_rates.npz") as arrays:
        rates = arrays[f"language__{pool}__rate"].astype(float)
        variations = arrays[f"language__{pool}__cv"].astype(float)
    hours = [rates[:, at : at + WINDOWS] for at in range(rates.shape[1] - WINDOWS)]
    first = max(range(len(hours)), key=lambda at: int((hours[at].min(axis=1) > 0).sum()))
    hour = hours[first]
    share = requests / (float(hour.sum()) * WINDOW_S)
    random = Random(1)
    mix = []
    for rank, client in enumerate(np.argsort(-hour.sum(axis=1))):
        source = lengths[rank // 2 % len(lengths)]
        for window in range(WINDOWS):
            rate = float(hour[client, window]) * share
            variation = float(variations[client, first + window])
            for at in _times(random, rate, variation):
                like = random.choice(source)
                mix.append(
                    msgspec.structs.replace(
                        like, at=window * WINDOW_S + at, tenant=str(client), blocks=()
                    )
                )
    return sorted(mix, key=lambda arrival: arrival.at)


def _times(random: Random, rate: float, variation: float) -> list[float]:
    """Arrivals within a window: a renewal process with gamma gaps of this mean rate and coefficient of variation."""
    if rate <= 0:
        return []
    shape = 1 / max(variation, 0.05) ** 2
    times = []
    at = random.random() * random.gammavariate(shape, 1 / (shape * rate))
    while at < WINDOW_S:
        times.append(at)
        at += random.gammavariate(shape, 1 / (shape * rate))
    return times
