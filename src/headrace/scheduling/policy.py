"""What a scheduling policy is: who of the waiting runs next, and what it has to know for that.

A policy is a plain synchronous decider: no clock (``now`` is monotonic seconds and comes in), no I/O. Every
operation is O(log n) in the waiting requests and not linear in tenants. Whatever numbers come in (NaN, infinite,
negative, a clock that jumps), no ticket is lost or given out twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

MOST_S = 1e12
MOST_TOKENS = 1e8
"""Beyond are no times and no requests; counters stay exact in a float below."""

PRIORITY_S = 10.0
MOST_STEPS = 100
"""A step of a request's own priority counts as so many seconds of arrival, and no more than so many steps
do: nobody waits for ever behind its own tenant."""


class Terms(msgspec.Struct, frozen=True):
    """What a tenant was promised; replaced as a whole when settings change.

    ``weight``: its share among the tenants of its class; with 0 it is served when nobody else waits. ``level``: its
    priority class; classes share by credit, not strictly. ``ttft_s``: target of the first token. ``sheddable``: its
    requests may be refused when they come too late or others need the room.

    A target of the time per output token is not here: how fast a request decodes is decided by how many its engine
    runs beside it, not by who is next. Whether it was kept is only counted (``attaining.py``).
    """

    tenant: str = "default"
    weight: float = 1.0
    level: str = "standard"
    ttft_s: float | None = None
    sheddable: bool = False


DEFAULT_TERMS = Terms()


class Ticket(msgspec.Struct, eq=False, gc=False):
    """One request, as a policy sees it.

    ``prompt_tokens``: counted or estimated; ``cached_tokens`` of them an engine is expected to hold already.
    ``output_tokens``: expected. ``deadline``: when the first token is due. ``priority``: the request's own within its
    tenant, lower is sooner. ``begun``: it had its first token; ``silent``: nobody will say when its first token comes.
    ``replica``: where it runs, once it does. ``produced``: output tokens charged so far. All below that belongs to
    the policy.
    """

    id: str
    terms: Terms = DEFAULT_TERMS
    arrived_at: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 256
    deadline: float = math.inf
    priority: int = 0
    begun: bool = False
    silent: bool = False
    replica: str = ""
    produced: int = 0

    stay: int = 0
    """The number of its stay in the queue; 0: it does not wait."""
    size: float = 0.0
    """Prompt tokens that have to be computed."""
    account: Any = None
    """What it is charged to, from its joining to its end."""
    charged: bool = False
    """Its prompt was."""
    runs: bool = False
    """An engine has it."""
    late: bool = False
    """It waits, and cannot make its deadline any more."""
    again: bool = False
    """It has begun more than once: what a cache has of its prompt may be from before."""
    cost: float = 0.0
    """What it was expected to cost when it joined."""
    start_by: float = math.inf
    """When it must start for its deadline."""
    pressed_at: float = math.inf
    """From when on it may go ahead of its turn, and others give way to it."""
    rescue_at: float = math.inf
    """When it has waited too long, late or not."""
    began_at: float = math.nan
    """When its prompt began to be computed, while it is."""
    prefilling: float = 0.0
    """How many tokens of it are computed."""
    queued: float = 0.0
    """How many of others the engine had before it."""
    pauses: int = 0
    """How often it gave way to another."""


class Policy(Protocol):
    """Who runs next. A ticket is ``add``-ed, then ``take``-n or ``remove``-d; what runs ``began`` and ``ended``."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int:
        """How many wait."""

    def __iter__(self) -> Iterator[Ticket]:
        """All who wait, in the order they joined."""

    def add(self, ticket: Ticket, now: float) -> None:
        """It waits from now on; also one that was pre-empted or whose run broke: it is not charged twice. One that
        waits already stays where it is."""

    def remove(self, ticket: Ticket) -> bool:
        """It leaves without running; whether it waited."""

    def peek(self, now: float) -> Ticket | None:
        """Who is next; the same until something changes."""

    def take(self, now: float) -> Ticket | None:
        """Who is next, and waits no more."""

    def serve(self, ticket: Ticket, now: float) -> bool:
        """It was next at :meth:`peek`, and waits no more; whether it waited."""

    def began(self, ticket: Ticket, now: float) -> None:
        """It runs: its uncached prompt is charged. One that never waited may begin as well."""

    def produced(self, ticket: Ticket, tokens: int, now: float) -> None:
        """So many more output tokens, charged in lumps: before decisions, never once a token."""

    def first_token(self, ticket: Ticket, now: float) -> None:
        """Its first token came."""

    def settled(self, ticket: Ticket, prompt_tokens: int, cached_tokens: int) -> None:
        """Its engine says how long its prompt is, and how much of it was in a cache: what it was charged for that is
        put right. Also of one that ended already."""

    def ended(self, ticket: Ticket, now: float) -> None:
        """It left the engine: for good, or ``add`` follows."""

    def refused(self, ticket: Ticket) -> None:
        """The engine that it left has computed nothing of it."""

    def expired(self, now: float) -> list[Ticket]:
        """Sheddable ones that cannot make their deadline any more: they were removed, refuse them."""

    def least_urgent(self, now: float, than: Ticket | None = None) -> Ticket | None:
        """The sheddable waiting one, whose answer has not begun, that gives way first; only one that is less urgent
        ``than`` this, which does not wait."""

    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None:
        """Which running one gives way to this waiting one; None: nobody."""

    def waiting(self, ticket: Ticket) -> int:
        """How many of its tenant wait, in its class; 0 where nobody counts them."""

    def hurries(self, ticket: Ticket, running: Iterable[Ticket], now: float, replica: str) -> bool:
        """Whether this one, which waits or is about to begin, needs a place of its own at this replica for being in
        time, at the cost of others: those that would give way to it. None of these does, and nothing is computed
        again."""

    def ranked(self, now: float, limit: int) -> list[Ticket]:
        """The first ``limit`` in the order in which they would run, were nothing to change."""


def finite(value: float, otherwise: float = 0.0) -> float:
    """The time, if it can be one."""
    return value if -MOST_S < value < MOST_S else otherwise


def tokens(count: float) -> float:
    """The count of tokens, 0 if it is none."""
    return count if 0 < count < MOST_TOKENS else 0.0


def steps(priority: float) -> float:
    """A request's own priority, in seconds of arrival."""
    return PRIORITY_S * min(max(priority, -MOST_STEPS), MOST_STEPS) if priority == priority else 0.0


def make_sane(ticket: Ticket, now: float) -> None:
    """What cannot be a time or a count is replaced, and its ``size`` known: done once when it comes, so that nothing
    behind has to look again."""
    prompt, cached = ticket.prompt_tokens, ticket.cached_tokens
    if not 0 <= cached <= prompt < MOST_TOKENS:
        ticket.prompt_tokens = prompt = int(tokens(prompt))
        ticket.cached_tokens = cached = min(int(tokens(cached)), prompt)
    ticket.size = prompt - cached
    if not 0 <= ticket.output_tokens < MOST_TOKENS:
        ticket.output_tokens = 0
    if not -MOST_S < ticket.arrived_at < MOST_S:
        ticket.arrived_at = finite(now)
