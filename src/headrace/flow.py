"""A ``Flow``: one model's way through the server, its queue, its replicas, its counters, its defaults."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from headrace.admission.estimates import Estimates, size_of
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.domain.request import Request, Sampling, Urgency
from headrace.domain.tenant import Tenant
from headrace.engines.engine import Engine, EngineInfo, Health
from headrace.protocols.port import ModelCard
from headrace.routing.model import Model, Place, Replica
from headrace.scheduling.queue import Queue
from headrace.streams.generation import Generation

CHARGE_S = 0.02
"""How often, at most, policies hear of tokens."""
REFUSED = ("reject", "spill")
"""What full queues refuse; who spills has looked for room at another model before."""
DEFAULTS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty", "seed"),
)
"""Sampling options that a model's settings may answer for a client that said nothing."""


class Counters(Protocol):
    """What is counted of one kind of requests to one model. Times in seconds."""

    admitted_count: int

    def started(self, queue_s: float) -> None: ...
    def waited(self, foreseen_s: float, really_s: float) -> None: ...
    def first_token(self, after_s: float) -> None: ...
    def finished(
        self,
        reason: str,
        e2e_s: float,
        usage: Usage,
    ) -> None: ...
    def failed(
        self,
        code: str,
        message: str = "",
        completion_tokens: int = 0,
        e2e_s: float | None = None,
    ) -> None: ...
    def tokens(self, count: int, gap_s: float) -> None: ...
    def target(self, tenant: str, target: str, met: bool) -> None: ...


class Beside(Protocol):
    """What is beside a model's engines, while it is wanted: see ``occasional.py``."""

    def wanted(self) -> bool: ...
    async def run(self) -> None: ...
    async def close(self) -> None: ...


class Apart(Beside, Protocol):
    """Where rows of jobs go instead: see ``apart.py``."""

    flow: Flow


class Express(Beside, Protocol):
    """Where those go whose first token is due while others have the slots: see ``express.py``."""

    replica: Replica[Engine]
    missed: deque[Generation]

    def began(self, generation: Generation, tenant: Tenant, now: float) -> None: ...
    def may_take(self, generation: Generation) -> bool: ...
    def place(self, generation: Generation, now: float) -> Place[Engine] | None: ...


class Flow:
    """``meters``: its counters, by a request's kind; ``shares``: identical requests whose answer can only be one get
    one run; ``serving``: a replica is ready; ``keeps_raw``: one can go on from raw output, which is only then worth
    its memory; ``context``: tokens of prompt and answer together, 0 if not known; ``exact``: going on replays
    token by token also where the client did not ask for it; ``apart``: where rows of jobs go; ``express``: where those
    go whose first token is due while others have the slots."""

    __slots__ = (
        "apart",
        "charged_at",
        "context",
        "defaults",
        "estimates",
        "exact",
        "express",
        "fallback",
        "keeps_raw",
        "meters",
        "model",
        "queue",
        "running",
        "serving",
        "shares",
        "told_at",
    )

    def __init__(
        self,
        model: Model[Engine],
        queue: Queue[Generation],
        meters: Mapping[str, Counters],
        defaults: Sampling | None,
        exact: bool = False,
        shares: bool = False,
        fallback: str | None = None,
    ) -> None:
        self.model = model
        self.queue = queue
        self.meters = meters
        self.defaults = defaults
        self.exact = exact
        self.shares = shares
        self.fallback = fallback
        self.apart: Apart | None = None
        self.express: Express | None = None
        self.serving = False
        self.keeps_raw = True
        self.context = 0
        self.estimates = Estimates()
        self.running: dict[str, Generation] = {}  # bounded by the replicas' places
        self.charged_at = self.told_at = 0.0

    @property
    def parts(self) -> Sequence[Flow]:
        """Itself, and that of rows of jobs if they have one."""
        return (self,) if self.apart is None else (self, self.apart.flow)

    @property
    def beside(self) -> Sequence[Beside]:
        """What is there beside the model's own engines."""
        return [one for one in (self.apart, self.express) if one is not None]

    @property
    def all_replicas(self) -> Sequence[Replica[Engine]]:
        """With those that only some go to."""
        express = () if self.express is None else (self.express.replica,)
        return [*(one for part in self.parts for one in part.model.replicas), *express]

    def for_urgency(self, urgency: Urgency) -> Flow:
        """Of the two, the one that this goes through."""
        apart = self.apart
        return self if apart is None or not urgency.spare or not apart.wanted() else apart.flow

    @property
    def rows_at_once(self) -> int:
        """How many rows of jobs are worth being under way: what slots take; where only rows are, also those that
        stand in the engine's own line, so that no slot idles between two."""
        if self.apart is not None and (
            rows := sum(one.places for one in self.apart.flow.model.replicas if one.up)
        ):
            return rows
        return sum(replica.slots for replica in self.model.replicas)

    @property
    def full(self) -> bool:
        """Whether nobody can join its queue."""
        waiting = self.queue.waiting
        return bool(waiting) and len(waiting) >= self.queue.limit

    def overflows(self, choices: int) -> bool:
        """Whether a request would find no room in its queue, nor so many slots at once where that holds nobody."""
        queue = self.queue
        if len(queue) < queue.limit:
            return False
        return bool(queue.waiting) or not self.model.has_room(choices)

    def admit(self, request: Request, overflow: str = "reject") -> Request:
        """The request as this model runs it: with its sampling defaults, and with a seed where one may be
        needed. ``overflow``: what becomes of it when the queue is full. Raises what its engine lacks,
        ``QUEUE_FULL``, or ``ENGINE_UNAVAILABLE`` where no replica can serve."""
        self.model.check(request)
        if not self.serving or (overflow in REFUSED and self.full):
            self._check_room()
        if self.defaults is not None:
            request = with_defaults(request, self.defaults)
        return with_seed(request) if self.keeps_raw else request

    def charge(self, now: float) -> None:
        """Tell the policy what was produced since it last heard: before its decisions, and not for each token."""
        if 0 <= now - self.charged_at < CHARGE_S:
            return
        self.charged_at = now
        for generation in self.running.values():
            self._charge(generation, now)

    def left(self, generation: Generation, now: float) -> None:
        """It has left its engine, for good or to go on later."""
        self._charge(generation, now)
        self.queue.policy.ended(generation.ticket, now)

    def settle(self, generation: Generation, usage: Usage) -> None:
        """It is over: what it was charged is put right by what its engine counted, and learnt from."""
        ticket = generation.ticket
        more = usage.completion_tokens - ticket.produced
        generation.charged_seq = generation.seq
        if more > 0 and ticket.charged:
            self.queue.policy.produced(ticket, more, time.monotonic())
        prompt, cached = usage.prompt_tokens, usage.cached_tokens
        said = generation.said
        if prompt and (said is None or not (said.prior or said.turns)):
            self.queue.policy.settled(ticket, prompt, cached)
            self.estimates.learn_prompt(size_of(generation.request), prompt)
            self.estimates.learn_cached(generation.caller.tenant, prompt, cached)
        reservation = generation.reservation
        if (reservation is None or reservation.size is None) and usage.completion_tokens:
            took_s = time.monotonic() - generation.started_at
            self.estimates.learn_answer(usage.completion_tokens, generation.request.choices, took_s)

    def _charge(self, generation: Generation, now: float) -> None:
        """An event is a token, about: few are something else."""
        more = generation.seq - generation.charged_seq
        if more > 0:
            generation.charged_seq = generation.seq
            self.queue.policy.produced(generation.ticket, more, now)

    def look_at_replicas(self, now: float) -> list[Replica[Engine]]:
        """Ask the engines how they are; returns the replicas that went up or down since. ``now``: monotonic
        seconds."""
        if self.express is not None:
            self.express.replica.look(now)
        changed = [replica for replica in self.model.replicas if replica.look(now)]
        if changed:
            self._count_serving()
        return changed

    def lost(self, replica: Replica[Engine], now: float) -> None:
        """It computes nothing, and its health may not say so yet: it gets nothing for a while."""
        replica.lost(now)
        self._count_serving()

    def hopeless(self) -> HeadraceError | None:
        """Why nobody will serve this model before something is done about it; None while somebody may."""
        states = [replica.engine.health() for replica in self.model.replicas]
        if any(state not in ("failed", "closed") for state, _ in states):
            return None
        return self._unavailable(states)

    def card(self) -> ModelCard:
        """What clients are told of the model."""
        model = self.model
        ready, reason = model.readiness()
        info = self._info()
        return ModelCard(
            model.name,
            model.aliases,
            model.created,
            info.type if info else "",
            info.version if info else "",
            info.parameters if info else 0,
            info.max_tokens if info else 0,
            info.context if info else 0,
            sum(replica.slots for replica in model.replicas),
            ready,
            reason,
        )

    def _count_serving(self) -> None:
        ready = [replica for replica in self.model.replicas if replica.up]
        self.serving = bool(ready)
        self.keeps_raw = not ready or any(one.engine.info().continues for one in ready)
        self.context = max((one.engine.info().context for one in ready), default=self.context)

    def _check_room(self) -> None:
        name, queue = self.model.name, self.queue
        if len(queue) >= queue.limit:
            raise HeadraceError(
                Code.QUEUE_FULL,
                f"{queue.limit} requests wait for model {name} already.",
                retry_after_s=queue.room_s(time.monotonic()),
            )
        if not self.serving:
            states = [replica.engine.health() for replica in self.model.replicas]
            if all(state in ("unreachable", "failed", "closed") for state, _ in states):
                raise self._unavailable(states)

    def _unavailable(self, states: Sequence[tuple[Health, str]]) -> HeadraceError:
        reason = states[0][1] if states else "it has no replica"
        text = f"Model {self.model.name} cannot serve: {reason}"
        return HeadraceError(Code.ENGINE_UNAVAILABLE, text, retry_after_s=5.0)

    def _info(self) -> EngineInfo | None:
        for replica in self.model.replicas:
            if replica.up:
                return replica.engine.info()
        return None


def with_defaults(request: Request, defaults: Sampling) -> Request:
    """The request with the model's sampling defaults where the client said nothing."""
    asked = request.sampling
    missing = {
        name: value
        for name in DEFAULTS
        if getattr(asked, name) is None and (value := getattr(defaults, name)) is not None
    }
    if not missing:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(asked, **missing))


def with_seed(request: Request) -> Request:
    """The request with a seed if it can only go on by being computed again: a grammar has no middle."""
    extra = request.extra
    whole = request.response_format or request.tools or (extra and "grammar" in extra)
    if not whole or request.sampling.seed is not None:
        return request
    sampling = msgspec.structs.replace(request.sampling, seed=secrets.randbits(31))
    return msgspec.structs.replace(request, sampling=sampling)
