"""What a queue's policy is told of a generation: whose it is, how long its prompt is, when its answer is due."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import msgspec

from headrace.admission.estimates import Estimates, size_of
from headrace.domain.tenant import LEVELS, Tenant
from headrace.scheduling.policy import Terms, Ticket
from headrace.streams.generation import Generation

MAX_TENANTS = 10_000
"""Whose terms are remembered in the form that policies take; above, all are forgotten."""

STEPS_BELOW = 6
"""Of priority, for each level that a request is below its tenant's: a minute of arrival."""


class Tickets:
    """``tenant``: the terms of one, by name."""

    def __init__(self, tenant: Callable[[str], Tenant]) -> None:
        self._tenant = tenant
        self._known: dict[str, tuple[Tenant, Terms]] = {}

    def tenant(self, name: str) -> Tenant:
        """Who pays."""
        return self._tenant(name)

    def give(self, generation: Generation, estimates: Estimates) -> Ticket:
        """A generation's ticket, for all of its runs."""
        caller, request = generation.caller, generation.request
        arrived_at = generation.admitted_at
        terms = self._terms(caller.tenant)
        deadline, priority = inf, request.priority
        urgency = caller.urgency
        if urgency is not None:
            ttft_s, level = urgency.ttft_s, urgency.level
            if urgency.spare:
                terms = _spare(terms)
            if ttft_s is not None:
                deadline = arrived_at + ttft_s
            if level is not None:
                below = LEVELS.index(level) - LEVELS.index(terms.level)
                priority += STEPS_BELOW * max(below, 0)
        prompt = estimates.prompt_tokens(size_of(request))
        generation.ticket = ticket = Ticket(
            generation.id,
            terms,
            arrived_at,
            prompt,
            estimates.cached_tokens(caller.tenant, prompt),
            request.sampling.max_tokens or estimates.likely,
            deadline,
            priority,
            generation.last_token_at > 0,
            not (request.stream or generation.durable),
        )
        return ticket

    def _terms(self, name: str) -> Terms:
        tenant = self._tenant(name)
        known = self._known.get(name)
        if known is not None and known[0] is tenant:
            return known[1]
        if len(self._known) >= MAX_TENANTS:
            self._known.clear()
        terms = Terms(name, tenant.weight, tenant.level, tenant.ttft_s, tenant.sheddable)
        self._known[name] = tenant, terms
        return terms


def _spare(terms: Terms) -> Terms:
    """Those of a tenant's requests that only take what nobody else wants."""
    return msgspec.structs.replace(terms, weight=0.0, level="batch", ttft_s=None)
