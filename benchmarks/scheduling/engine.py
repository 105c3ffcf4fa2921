"""A model of an engine with continuous batching, as S-LoRA's: what a policy chooses from, and what that costs.

Between decode steps the engine takes in waiting requests in the policy's order until one does not fit: all
that run must fit the memory pool to their ends (the lengths of outputs are known, as in the artifact of VTC,
whose client asks for just so many tokens), and the new ones together may have so many prompt tokens. Their
prefill holds up the decoding of the others.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.prefix_cache import PrefixCache
from headrace.scheduling.policy import Terms, Ticket


class Scheduler(Protocol):
    """What the engine asks of a policy: a part of ``headrace.scheduling.policy.Policy``."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def add(self, ticket: Ticket, now: float) -> None: ...
    def peek(self, now: float) -> Ticket | None: ...
    def take(self, now: float) -> Ticket | None: ...
    def began(self, ticket: Ticket, now: float) -> None: ...
    def produced(self, ticket: Ticket, tokens: int, now: float) -> None: ...
    def first_token(self, ticket: Ticket, now: float) -> None: ...
    def ended(self, ticket: Ticket, now: float) -> None: ...
    def victim(self, ticket: Ticket, running: Iterable[Ticket], now: float) -> Ticket | None: ...


class Engine(msgspec.Struct, frozen=True):
    """The constants of one engine; times in seconds."""

    name: str
    pool_tokens: int
    prefill_tokens: int
    """Uncached prompt tokens admitted at once; a longer prompt is admitted alone."""
    admit_every: int
    """Decode steps between one prefill and the next."""
    prefill_s: float
    prefill_token_s: float
    step_s: float
    step_sequence_s: float
    step_held_s: float
    cached_blocks: int = 0
    """Prefix blocks kept for prompts to come."""


class Served(msgspec.Struct):
    """What became of one request; times since the trace began."""

    arrival: Arrival
    first_token_at: float = 0.0
    ended_at: float = 0.0

    @property
    def first_token_s(self) -> float:
        """The wait for the first token."""
        return self.first_token_at - self.arrival.at


class _Run(msgspec.Struct, eq=False):
    """A request in decode: its ``ends_at`` and ``offset`` are counted in decode steps of the engine, so that
    ``offset + step`` tokens are held at any step."""

    ends_at: int
    offset: int
    charged: int
    ticket: Ticket
    served: Served

    def __lt__(self, other: _Run) -> bool:
        return self.ends_at < other.ends_at


Lengths = tuple[int, int]
"""Prompt and output tokens."""


def as_counted(arrival: Arrival) -> Lengths:
    """The prompt is known; of the output nothing is."""
    return arrival.prompt_tokens, 256


class Simulation:
    """One trace through one engine under one policy. ``classes``: whether it is told the tenants' priority classes.
    ``pauses``: whether those that run give way as the policy says; what they had is computed again. ``told``: the
    lengths of a request as the policy hears of them."""

    def __init__(
        self,
        engine: Engine,
        policy: Scheduler,
        *,
        classes: bool = False,
        pauses: bool = False,
        told: Callable[[Arrival], Lengths] = as_counted,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._told = told
        self._classes = classes
        self._pauses = pauses
        self._done: dict[str, int] = {}
        """Output tokens of those that gave way."""
        self._cache = PrefixCache(engine.cached_blocks)
        self._terms: dict[str, Terms] = {}
        self._served: dict[str, Served] = {}
        self._running: list[_Run] = []
        self._offsets = 0
        self._now = 0.0
        self._step = 0

    def run(self, arrivals: Sequence[Arrival]) -> list[Served]:
        """All of ``arrivals`` (in order of time) to their ends."""
        policy, running = self._policy, self._running
        next_arrival = 0
        since_prefill = 0
        while next_arrival < len(arrivals) or running or len(policy):
            while next_arrival < len(arrivals) and arrivals[next_arrival].at <= self._now:
                self._arrive(str(next_arrival), arrivals[next_arrival])
                next_arrival += 1
            if len(policy) and (not running or since_prefill >= self._engine.admit_every):
                if self._admit():
                    since_prefill = 0
                    continue
                if not running:
                    raise ValueError(f"{policy.name} leaves an idle engine waiting")
            if running:
                self._decode()
                since_prefill += 1
            else:
                self._now = arrivals[next_arrival].at
        return list(self._served.values())

    def _arrive(self, id: str, arrival: Arrival) -> None:
        terms = self._terms.get(arrival.tenant)
        if terms is None:
            terms = self._terms[arrival.tenant] = Terms(
                tenant=arrival.tenant,
                level=arrival.level if self._classes else "standard",
                ttft_s=arrival.target_s,
            )
        self._served[id] = Served(arrival)
        prompt_tokens, output_tokens = self._told(arrival)
        ticket = Ticket(
            id=id,
            terms=terms,
            arrived_at=arrival.at,
            prompt_tokens=prompt_tokens,
            cached_tokens=self._cache.cached_tokens(arrival.blocks, prompt_tokens),
            output_tokens=output_tokens,
            deadline=arrival.at + arrival.target_s,
        )
        self._policy.add(ticket, arrival.at)

    def _admit(self) -> bool:
        """Take in whom the policy names as long as they fit; whether anyone was."""
        engine, policy = self._engine, self._policy
        self._charge()
        new: list[_Run] = []
        prompt_tokens = 0
        while (ticket := policy.peek(self._now)) is not None:
            arrival = self._served[ticket.id].arrival
            cached = self._cache.cached_tokens(arrival.blocks, arrival.prompt_tokens)
            ticket.cached_tokens = min(cached, ticket.prompt_tokens)
            done = self._done.get(ticket.id, 0)
            uncached = arrival.prompt_tokens - cached + done
            if new and prompt_tokens + uncached > engine.prefill_tokens:
                break
            run = _Run(
                ends_at=self._step + arrival.output_tokens - done - 1,
                offset=arrival.prompt_tokens + done + 1 - self._step,
                charged=self._step,
                ticket=ticket,
                served=self._served[ticket.id],
            )
            if not self._make_room(run, new):
                break
            policy.take(self._now)
            policy.began(ticket, self._now)
            self._cache.use(arrival.blocks)
            new.append(run)
            prompt_tokens += uncached
        if new:
            self._prefill(new, prompt_tokens)
        return bool(new)

    def _make_room(self, run: _Run, new: Sequence[_Run]) -> bool:
        """Add it to those that run, if it fits or others give way for it."""
        running = self._running
        insort(running, run)
        while self._peak() > self._engine.pool_tokens and len(running) > 1:
            victim = None
            if self._pauses:
                may = {one.ticket: one for one in running if one is not run and one not in new}
                victim = self._policy.victim(run.ticket, may, self._now)
            if victim is None:
                running.remove(run)
                return False
            self._pause(may[victim])
        return True

    def _pause(self, run: _Run) -> None:
        ticket = run.ticket
        self._running.remove(run)
        self._offsets -= run.offset
        self._done[ticket.id] = run.served.arrival.output_tokens - (run.ends_at - self._step)
        ticket.pauses += 1
        self._policy.ended(ticket, self._now)
        self._policy.add(ticket, self._now)

    def _peak(self) -> int:
        """The most tokens that those who run will hold at any time to come: at the end of one of them."""
        peak = offsets = 0
        for count, run in enumerate(reversed(self._running), 1):
            offsets += run.offset
            peak = max(peak, run.ends_at * count + offsets)
        return peak

    def _prefill(self, new: list[_Run], prompt_tokens: int) -> None:
        self._now += self._engine.prefill_s + self._engine.prefill_token_s * prompt_tokens
        for run in new:
            self._offsets += run.offset
            if not run.served.first_token_at:
                run.served.first_token_at = self._now
                self._policy.first_token(run.ticket, self._now)
            self._policy.produced(run.ticket, 1, self._now)
        self._end()

    def _decode(self) -> None:
        engine, count = self._engine, len(self._running)
        held = self._offsets + count * self._step
        self._now += engine.step_s + engine.step_sequence_s * count + engine.step_held_s * held
        self._step += 1
        self._end()

    def _charge(self) -> None:
        """Tell the policy what was produced since it was last told."""
        for run in self._running:
            if run.charged < self._step:
                self._policy.produced(run.ticket, self._step - run.charged, self._now)
                run.charged = self._step

    def _end(self) -> None:
        running = self._running
        while running and running[0].ends_at <= self._step:
            run = running.pop(0)
            self._offsets -= run.offset
            run.served.ended_at = self._now
            if run.charged < self._step:
                self._policy.produced(run.ticket, self._step - run.charged, self._now)
            self._policy.ended(run.ticket, self._now)
