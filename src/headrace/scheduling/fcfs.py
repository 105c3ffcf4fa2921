"""First come, first served."""

from __future__ import annotations

from headrace.scheduling.ordered import Ordered


class Fcfs(Ordered):
    """By arrival; one that rejoins has the place that its arrival gives it."""

    __slots__ = ()
    name = "fcfs"
