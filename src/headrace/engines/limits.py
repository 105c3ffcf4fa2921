"""Bounds of the client of one upstream, in seconds and as counted by the pool's sweep."""

from __future__ import annotations

import math

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one upstream. ``first_byte_s`` lasts from the request to the first byte of the
    answer's *body*: an engine that queues or prefills is silent until then. ``idle_s``: how long an
    unused connection is kept. ``max_waiting``: calls that wait while all connections are busy."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    between_bytes_s: float = 120.0
    idle_s: float = 60.0
    max_connections: int = 16_384
    max_waiting: int = 1024

    @property
    def sweep_s(self) -> float:
        """How often the pool looks: a quarter of the shortest limit, between 10 ms and 1 s."""
        shortest = min(self.connect_s, self.first_byte_s, self.between_bytes_s, self.idle_s)
        return min(1.0, max(0.01, shortest / 4))


class Ticks(msgspec.Struct, frozen=True):
    """:class:`Limits` in sweeps; one more than exact, so that a limit is never cut short."""

    connect: int
    first_byte: int
    between_bytes: int
    idle: int

    @classmethod
    def of(cls, limits: Limits) -> Ticks:
        times = (limits.connect_s, limits.first_byte_s, limits.between_bytes_s, limits.idle_s)
        return cls(*(math.ceil(time_s / limits.sweep_s) + 1 for time_s in times))
