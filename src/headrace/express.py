"""A model's engine for those whose first token is due while others have the slots, there while there are some."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

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
FEW = 1 / 5
"""Among equals one has a third of another's now and then, and two processes do less than one: all are later by that."""
HERE, ALL = "here", "all"
"""One more may begin here while what began here of late is a quarter at most of what began in all and what runs
elsewhere, however long ago that began: see :data:`~headrace.scheduling.recent.LIGHT`."""
DELAY_S = 0.5
"""Who comes first has its first token by then, and the load does not make it later."""


class Express(Occasional):
    """``replica``: whose engine is ``engine``; ``leading``: the flow of the model's own. ``missed``: who found no place
    there, the newest of them. It is for those who ask for little, also all together: two processes do less than one."""

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
        self._places = Recent()

    def began(self, generation: Generation, tenant: Tenant, now: float) -> None:
        """It runs, here or elsewhere: so much its tenant asks for."""
        urgency = generation.caller.urgency
        if tenant.weight > 0 and (urgency is None or not urgency.spare):
            asked_for = self._asked_for(generation)
            self._recent.add(generation.caller.tenant, asked_for / tenant.weight, now)
            self._places.add(ALL, asked_for, now)

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
        asked_for = self._asked_for(generation)
        more = 0.0 if runs else asked_for / weight
        light = self._recent.is_light(generation.caller.tenant, more, now)
        if not (light or self._has_few(generation)):
            return None
        others = [one.ticket for one in running if one.place.replica is not replica]
        if self._is_full(others, now):
            return None
        there = self.wanted()  # soon: who comes next may have to hurry
        if not self._leading.queue.policy.hurries(ticket, others, now, replica.name):
            return None
        if there and replica.ready and replica.in_use < replica.slots:
            replica.in_use += 1
            self._places.add(HERE, asked_for, now)
            return Place(replica, 1)
        if generation not in self.missed:
            self.missed.append(generation)
        return None

    def _has_few(self, generation: Generation) -> bool:
        """Whether its tenant has a fifth at most of what somebody else has who runs, with those that wait: that one may
        have begun just now, so that what was asked for of late does not show it."""
        queue, running = self._leading.queue, self._leading.running.values()
        waiting = queue.policy.waiting
        runs = Counter(one.caller.tenant for one in running)
        tenant = generation.caller.tenant
        comes = generation.place is None and generation.id not in queue.waiting
        own = runs[tenant] + waiting(generation.ticket) + comes
        return any(
            own <= FEW * (runs[one.caller.tenant] + waiting(one.ticket))
            for one in running
            if one.caller.tenant != tenant
        )

    def _is_full(self, others: Sequence[Ticket], now: float) -> bool:
        """Whether what was begun here of late is more than its part, of what was begun and what ``others`` have."""
        run = sum(one.prompt_tokens + OUTPUT_COST * one.output_tokens for one in others)
        return not self._places.is_light(HERE, 0.0, now, run)

    def _asked_for(self, generation: Generation) -> float:
        """Weighted tokens."""
        estimates, request = self._leading.estimates, generation.request
        output = request.sampling.max_tokens or estimates.likely
        return estimates.prompt_tokens(size_of(request)) + OUTPUT_COST * output

    @property
    def _needed(self) -> bool:
        return self.replica.in_use > 0

    @property
    def _without(self) -> str:
        return f"who is pressed at {self.replica.name} takes a slot from others"

    def _gave_up(self, error: HeadraceError) -> None:
        """Nobody waits for it: see the queue of the model."""
