"""How a request for tensors or embeddings stands among the others that wait for a run."""

from __future__ import annotations

import math

import msgspec

from headrace.domain.tenant import Overflow


class Standing(msgspec.Struct, frozen=True, gc=False):
    """``priority``: lower is sooner. ``deadline``: monotonic seconds by which its run must have begun. ``overflow``:
    what becomes of it when it finds the queue full. ``sheddable``: whether it may give way to others while it waits."""

    priority: int = 0
    deadline: float = math.inf
    overflow: Overflow = "reject"
    sheddable: bool = False


USUAL = Standing()
