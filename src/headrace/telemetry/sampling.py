"""Which traces are recorded: the samplers that OpenTelemetry names, as plain deciders."""

from __future__ import annotations

from typing import NamedTuple

_ALL = 1 << 64
LOW = _ALL - 1
"""What counts of a trace's id: its low 64 bits."""

PARENT_BASED = "parentbased_"
KINDS = frozenset(("always_on", "always_off", "traceidratio"))


class Sampler(NamedTuple):
    """``bound``: a trace whose id is below it in its low 64 bits is recorded, so that of one that a server
    records all others with its ratio do. ``parent_based``: where somebody before has decided, that counts."""

    bound: int = _ALL
    parent_based: bool = True

    @classmethod
    def named(cls, name: str, argument: str = "") -> Sampler:
        """As ``OTEL_TRACES_SAMPLER`` and its ``_ARG`` say it (without one: 1). Raises ``ValueError``."""
        kind = name.removeprefix(PARENT_BASED)
        if kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            raise ValueError(f"{name!r} is none of {known}, each also with {PARENT_BASED!r} before")
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
        if ratio is None:
            ratio = _ratio(argument)
        return cls(round(ratio * _ALL), kind != name)

    def takes(self, trace_id: int, decided: bool | None) -> bool:
        """Whether to record a trace. ``decided``: by who began it; None: it begins here."""
        if decided is not None and self.parent_based:
            return decided
        return trace_id & LOW < self.bound


def _ratio(argument: str) -> float:
    try:
        ratio = float(argument or 1)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"the ratio {argument!r} is not a number from 0 to 1")
    return ratio
