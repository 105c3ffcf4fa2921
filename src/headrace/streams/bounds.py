"""What a store keeps: finished generations go whole, oldest first, never a running one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.domain.errors import Code, HeadraceError

Clock = Callable[[], float]
"""Float Unix seconds."""

TOMBSTONES = 100_000
"""Ids of dropped generations that are remembered, so that reading one is *gone* rather than *never
seen*. The oldest are forgotten first."""


PASSING_S = 300.0
"""How long a generation that is not to be kept stays after its end: for a client whose connection broke, and who
comes back for the rest."""
PASSING_AT_MOST_S = 86_400.0
"""The same where its client may stay away for as long as it likes."""


class Bounds(msgspec.Struct, frozen=True):
    """``keep_s``: seconds since a generation ended. ``keep_generations``, ``keep_bytes``: of all
    finished ones together; bytes are encoded headers and events."""

    keep_s: float = 7 * 86_400.0
    keep_generations: int = 100_000
    keep_bytes: int = 1 << 30


def gone(id: str) -> HeadraceError:
    """The error for a generation that the bounds have dropped."""
    return HeadraceError(
        Code.CURSOR_GONE,
        f"{id} is no longer kept. Send the request again; the operator can keep generations longer "
        "with store.keep_s, store.keep_generations and store.keep_bytes.",
    )
