"""Requests of all kinds, and an engine with slots, for the tests of policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from headrace.scheduling.policies import POLICIES
from headrace.scheduling.policy import Policy, Terms, Ticket

MAKERS: list[Callable[..., Policy]] = list(POLICIES.values())
NAMES = list(POLICIES)
STARVING = {"slo-formula"}
"""Under which somebody may wait for as long as others come; its docstring warns of that."""

WILD: st.SearchStrategy[Any] = st.one_of(
    st.floats(), st.floats(-10, 100), st.integers(-5, 5000), st.integers()
)
"""What a broken clock or metric may say."""

LEVELS = st.sampled_from(["interactive", "standard", "batch", "another"])
TENANTS = st.sampled_from("abcdefgh")


@st.composite
def terms(
    draw: st.DrawFn,
    weights: st.SearchStrategy[Any] = WILD,
    targets_s: st.SearchStrategy[Any] = WILD,
) -> Terms:
    return Terms(
        tenant=draw(TENANTS),
        weight=draw(weights),
        level=draw(LEVELS),
        ttft_s=draw(st.none() | targets_s),
        sheddable=draw(st.booleans()),
    )


class Slots:
    """An engine: what runs there, at most ``slots``; each step of it gives every request ``tokens`` more. ``cached``:
    how much of a prompt it finds in its cache, which it says at the end."""

    def __init__(
        self, policy: Policy, slots: int, cached: Callable[[Ticket], int] | None = None
    ) -> None:
        self.policy = policy
        self.slots = slots
        self.cached = cached
        self.running: dict[str, Ticket] = {}
        self.served: dict[str, float] = {}
        self.taken: list[Ticket] = []

    def fill(self, now: float) -> None:
        while len(self.running) < self.slots and (ticket := self.policy.take(now)) is not None:
            self.policy.began(ticket, now)
            self.policy.first_token(ticket, now + 0.1)
            self.running[ticket.id] = ticket
            self.taken.append(ticket)
            self._serve(ticket, ticket.prompt_tokens - (self.cached(ticket) if self.cached else 0))

    def step(self, tokens: int, now: float) -> None:
        for ticket in list(self.running.values()):
            more = min(tokens, ticket.output_tokens - ticket.produced)
            self.policy.produced(ticket, more, now)
            self._serve(ticket, 2 * more)
            if ticket.produced >= ticket.output_tokens:
                del self.running[ticket.id]
                if self.cached:
                    self.policy.settled(ticket, ticket.prompt_tokens, self.cached(ticket))
                self.policy.ended(ticket, now)

    def _serve(self, ticket: Ticket, cost: float) -> None:
        tenant = ticket.terms.tenant
        self.served[tenant] = self.served.get(tenant, 0.0) + cost / ticket.terms.weight
