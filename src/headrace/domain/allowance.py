"""What a caller has left of its limits: of several that hold for it, of the one that is the tightest."""

from __future__ import annotations

import msgspec


class Left(msgspec.Struct, frozen=True, gc=False):
    """``limit``: what there can be at most. ``reset_s``: seconds until all of it is there again, if nothing is used."""

    limit: int
    remaining: int
    reset_s: float


class Allowance(msgspec.Struct, frozen=True, gc=False):
    """None: no limit."""

    requests: Left | None
    tokens: Left | None
