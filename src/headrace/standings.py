"""How a request for tensors or embeddings stands in its queue: by its tenant's terms, and by what it says itself. Those
of generations are tickets (``tickets.py``); what headers mean is the same for both."""

from __future__ import annotations

import math
from collections.abc import Callable

from headrace.domain.request import Caller
from headrace.domain.standing import Standing
from headrace.domain.tenant import LEVELS, Level, Tenant
from headrace.tickets import STEPS_BELOW

Stand = Callable[[Caller, int, float], Standing]
"""Of a request's caller, with the priority that it names; ``now``: monotonic seconds."""


class Standings:
    """``tenant``: the terms of one, by name."""

    def __init__(self, tenant: Callable[[str], Tenant]) -> None:
        self._tenant = tenant

    def of(self, caller: Caller, priority: int, now: float) -> Standing:
        """Each level is a minute of arrival ahead of the next. Only who may be shed is refused for its target: others
        are late rather than lost."""
        tenant = self._tenant(caller.tenant)
        below = LEVELS.index(_level(tenant, caller)) - LEVELS.index("standard")
        deadline = math.inf
        if tenant.sheddable:
            said = None if caller.urgency is None else caller.urgency.ttft_s
            target = tenant.ttft_s if said is None else said
            deadline = math.inf if target is None else now + target
        return Standing(priority + STEPS_BELOW * below, deadline, tenant.overflow, tenant.sheddable)


def _level(tenant: Tenant, caller: Caller) -> Level:
    """No request is above its tenant's."""
    urgency = caller.urgency
    if urgency is None:
        return tenant.level
    if urgency.spare:
        return "batch"
    return max(tenant.level, urgency.level or tenant.level, key=LEVELS.index)
