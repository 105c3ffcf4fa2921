"""One request of a trace: when it comes, whose it is and how long it is."""

from __future__ import annotations

from math import inf

import msgspec


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """``blocks``: hashes of the prompt's prefix blocks, where the trace knows them. ``target_s``: of its first token.
    ``level``: the priority class of its tenant."""

    at: float
    tenant: str
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    target_s: float = inf
    level: str = "standard"
