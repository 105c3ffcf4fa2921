"""A model's engine for those whose first token is due while others have the slots, there while there are some."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from headrace.admission.estimates import size_of
from headrace.domain.errors import HeadraceError
from headrace.domain.tenant import Tenant
from headrace.engines.engine import Engine
from headrace.engines.lazy import LazyEngine
from headrace.flow import Flow
from headrace.occasional import LOOK_S, Occasional
from headrace.routing.model import Place, Replica
from headrace.scheduling.fair import OUTPUT_COST
from headrace.scheduling.policy import Ticket
from headrace.scheduling.recent import Recent
from headrace.streams.generation import Generation

IDLE_S = 3600.0
"""It is loaded when two tenants meet, which is too late for the first of them: so it stays for a while."""
MISSED = 64
FEW_SLOTS = 1 / 3
DELAY_S = 0.5
"""Who comes first has its first token by then, and the load does not make it later."""


class Express(Occasional):
    """``replica``: whose engine is ``engine``; ``leading``: the flow of the model's own. ``missed``: who found no place
    there, the newest of them. It is for those who ask for little: two processes do less than one."""

    def __init__(
        self,
        replica: Replica[Engine],
        engine: LazyEngine,
        leading: Flow,
        tell: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
        delay_s: float = DELAY_S,
    ) -> None:
        super().__init__(engine, leading, tell, look_s=look_s, idle_s=idle_s, delay_s=delay_s)
        self.replica = replica
        self.missed: deque[Generation] = deque(maxlen=MISSED)
        self._recent = Recent()

    def began(self, generation: Generation, tenant: Tenant, now: float) -> None:
        """It runs, here or elsewhere: so much its tenant asks for."""
        urgency = generation.caller.urgency
        if tenant.weight > 0 and (urgency is None or not urgency.spare):
            asked_for = self._asked_for(generation, tenant.weight)
            self._recent.add(generation.caller.tenant, asked_for, now)

    def may_take(self, generation: Generation) -> bool:
        """Whether it is one of those whose first token somebody sees, and other tenants run."""
        request, tenant = generation.request, generation.caller.tenant
        if generation.last_token_at or request.choices > 1:
            return False
        if not (request.stream or generation.durable):
            return False
        return any(one.caller.tenant != tenant for one in self._leading.running.values())

    def place(self, generation: Generation, now: float) -> Place[Engine] | None:
        """A slot for one with a ticket that is short of time while other tenants have more than their share of the
        slots; None for others, and while there is none."""
        ticket: Ticket = generation.ticket
        replica, running = self.replica, self._leading.running.values()
        weight = ticket.terms.weight
        if not weight > 0:
            return None
        runs = generation.place is not None  # in its engine's own line
        asked_for = 0.0 if runs else self._asked_for(generation, weight)
        tenant = generation.caller.tenant
        if not (
            self._recent.is_light(tenant, asked_for, now) or self._has_few(tenant, 0 if runs else 1)
        ):
            return None
        there = self.wanted()  # soon: who comes next may have to hurry
        others = [one.ticket for one in running if one.place.replica is not replica]
        if not self._leading.queue.policy.hurries(ticket, others, now, replica.name):
            return None
        if there and replica.ready and replica.in_use < replica.slots:
            replica.in_use += 1
            return Place(replica, 1)
        if generation not in self.missed:
            self.missed.append(generation)
        return None

    def _has_few(self, tenant: str, more: int) -> bool:
        """Whether with so many more it runs a third at most of what somebody else does: that one may have begun just
        now, so that what was asked for of late does not show it."""
        running = Counter(one.caller.tenant for one in self._leading.running.values())
        own = running.pop(tenant, 0) + more
        return own <= FEW_SLOTS * max(running.values(), default=0)

    def _asked_for(self, generation: Generation, weight: float) -> float:
        """Weighted tokens, in its tenant's shares."""
        estimates, request = self._leading.estimates, generation.request
        output = request.sampling.max_tokens or estimates.likely
        return (estimates.prompt_tokens(size_of(request)) + OUTPUT_COST * output) / weight

    @property
    def _needed(self) -> bool:
        return self.replica.in_use > 0

    @property
    def _without(self) -> str:
        return f"who is pressed at {self.replica.name} takes a slot from others"

    def _gave_up(self, error: HeadraceError) -> None:
        """Nobody waits for it: see the queue of the model."""
