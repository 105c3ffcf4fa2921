"""What the service tells the limiter: who comes, what runs at which pace, and what a generation has really used.

A reservation is settled before the end of its answer is visible: what a client saw is paid, also if the process is
killed in that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec

from headrace.admission.day import DayBudgets
from headrace.admission.estimates import Size, input_size, size_of, utf8_bytes
from headrace.admission.limiter import Limiter, Rules
from headrace.admission.pace import Pace, Paced
from headrace.admission.plan import Plan, Reservation
from headrace.admission.sizes import Sizes
from headrace.domain.delta import Delta
from headrace.domain.embeddings import Input
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Event, Finish, Progress, Token
from headrace.domain.request import Caller, Cap, Message, Request
from headrace.engines.engine import Engine, Run, Work
from headrace.flow import Flow
from headrace.streams.generation import Generation
from headrace.streams.said import Said
from headrace.streams.store import Recovered

LEAVING = frozenset((Code.CANCELLED, Code.CLIENT_GONE, Code.GENERATION_TIMEOUT))
"""Ends of what was being computed. Who was failed by an engine before it got a token pays nothing."""


class Limiting:
    """Without ``rules`` and ``sizes`` nobody is limited."""

    def __init__(
        self,
        rules: Rules | None = None,
        sizes: Sizes | None = None,
        days: DayBudgets | None = None,
    ) -> None:
        sizes = sizes or Sizes()
        self._days = DayBudgets() if days is None else days
        self.refused = 0
        """Requests that a limit did not let in."""
        self._limiter = Limiter(self._days)
        self.replace(rules or Rules(), sizes)

    def replace(self, rules: Rules, sizes: Sizes) -> None:
        """From now on these hold, for who comes; no stream notices."""
        self._sizes = sizes
        self._sized = sizes.max_tokens is not None or sizes.max_n is not None
        counts = sizes.max_prompt_tokens is not None
        self._limiter.replace(rules, plans_for_all=counts)
        self._free = not counts and rules.limit_nobody

    def reserve(
        self, id: str, request: Request, caller: Caller, flow: Flow, wall: float
    ) -> tuple[Request, Reservation | None]:
        """Let a request in, or refuse it before anything costly is done. Returns it with its cap, and what it
        may use; None where nothing limits it. Raises ``RATE_LIMITED``, ``CONCURRENCY_LIMIT``, ``REQUEST_TOO_LARGE``,
        ``CONTEXT_LENGTH``, ``INVALID_REQUEST`` and ``STORE_FAILED``."""
        if self._sized:
            request = self._sizes.check(request)
        if self._free:
            return request, None
        now = time.monotonic()
        plan = self._limiter.plan(caller.tenant, caller.key_id, flow.model.name, now)
        if plan is None:
            return request, None
        size, prompt, output, cap = self._asked(plan, request, flow.context)
        self._sizes.check_prompt(prompt)
        try:
            reservation = plan.reserve(id, size, prompt, output, request.choices, now, wall)
        except HeadraceError:
            self.refused += 1
            raise
        cap = reservation.cap or cap
        if cap is not request.cap:
            request = msgspec.structs.replace(request, cap=cap)
        return request, reservation

    def reserve_inputs(
        self, id: str, inputs: Sequence[Input], caller: Caller, model: str, wall: float
    ) -> Reservation | None:
        """Let a request in that computes no answer and reads ``inputs``, each of which is as long as a prompt may be.
        Returns what it may use; None where nothing limits it. Raises as :meth:`reserve`."""
        if self._free:
            return None
        now = time.monotonic()
        plan = self._limiter.plan(caller.tenant, caller.key_id, model, now)
        if plan is None:
            return None
        sizes = [input_size(one) for one in inputs]
        self._sizes.check_prompt(max(plan.estimates.prompt_tokens(size) for size in sizes))
        whole = Size(sum(one.text_bytes for one in sizes), sum(one.tokens for one in sizes))
        prompt = plan.estimates.prompt_tokens(whole)
        try:
            return plan.reserve(id, whole, prompt, 0, 1, now, wall)
        except HeadraceError:
            self.refused += 1
            raise

    @staticmethod
    def settle_inputs(reservation: Reservation | None, used: int) -> None:
        """Its inputs had so many tokens; 0: nothing came of it."""
        if reservation is not None:
            if used and reservation.size is not None:
                reservation.plan.estimates.learn_prompt(reservation.size, used)
            reservation.settle(used, time.monotonic())

    def take_request(self, tenant: str, key_id: str, model: str) -> Plan | None:
        """Let a request in that generates nothing. ``model``: its own name. Returns what knows what its caller has
        left; None where nothing limits it. Raises ``RATE_LIMITED``."""
        if self._free:
            return None
        now = time.monotonic()
        plan = self._limiter.plan(tenant, key_id, model, now)
        if plan is not None:
            try:
                plan.take_request(now, time.time())
            except HeadraceError:
                self.refused += 1
                raise
        return plan

    def plan(self, caller: Caller, model: str) -> Plan | None:
        """What knows what a caller has left, who takes nothing; None where nothing limits it. ``model``: its own
        name."""
        if self._free:
            return None
        return self._limiter.plan(caller.tenant, caller.key_id, model, time.monotonic())

    def prompted(self, generation: Generation, message: Message) -> None:
        """A message is about to be added. Raises ``RATE_LIMITED``, ``REQUEST_TOO_LARGE`` and, if it is too much
        together with what was asked before, ``CONTEXT_LENGTH``."""
        reservation: Reservation | None = generation.reservation
        if reservation is not None:
            size = Size(utf8_bytes(message.text), 0)
            tokens = reservation.plan.estimates.prompt_tokens(size)
            self._sizes.check_prompt(reservation.prompt + tokens)
            reservation.add_prompt(tokens, time.monotonic(), time.time())

    def start(
        self,
        engine: Engine,
        work: Work,
        generation: Generation,
        computed: Callable[[Generation], None],
    ) -> Run:
        """Start a run. Where it has a pace, ``computed`` is called if its engine is done before all is shown."""
        reservation: Reservation | None = generation.reservation
        if reservation is None or reservation.plan.pace is None:
            return engine.stream_infer(work, generation)
        if reservation.pace is None:
            reservation.pace = Pace(reservation.plan.pace, time.monotonic())
        paced = Paced(reservation.pace, generation, work.live, partial(computed, generation))
        paced.of(engine.stream_infer(work, paced))
        return paced

    def settle(self, generation: Generation, end: Finish | Error) -> None:
        """A generation is about to end."""
        reservation: Reservation = generation.reservation
        now = time.monotonic()
        if type(end) is Finish:
            used = _finished(generation, reservation, end, now)
        else:
            assert type(end) is Error
            used = _begun(generation, reservation, end, now)
        reservation.settle(used, now)

    # After a crash.

    def load(self, wall: float) -> None:
        """What was used before this process began. Raises ``STORE_FAILED``."""
        self._days.load(wall)

    def resume(self, id: str, request: Request, caller: Caller, flow: Flow) -> Reservation | None:
        """A generation goes on that was let in before the crash; in spite of limits that are others by now."""
        now, wall = time.monotonic(), time.time()
        plan = self._limiter.plan(caller.tenant, caller.key_id, flow.model.name, now)
        if plan is None:
            self.died(id, (), ())  # no limit counts it any more
            return None
        known = self._days.open.get(id)
        if known is not None:
            return plan.resume(id, known.prompt, known.output, now, wall)
        _, prompt, output, _ = self._asked(plan, request, flow.context)
        return plan.resume(id, prompt, output * request.choices, now, wall)

    def died(self, id: str, events: Sequence[Event], raw: Sequence[Delta]) -> None:
        """A generation does not go on: it used what its log says."""
        known = self._days.open.get(id)
        if known is not None:
            began = any(
                type(event) is Token or (type(event) is Progress and event.phase == "prefill")
                for event in events
            )
            prompt = known.prompt if began or not events else 0
            self._days.settle(id, prompt + max(_tokens(events), _raw_tokens(raw)))

    def forget_lost(self, known: Iterable[Recovered]) -> None:
        """Settle what was let in and never came to a log: nobody knows more of it than its prompt."""
        for id in self._days.open.keys() - {recovered.header.id for recovered in known}:
            self.died(id, (), ())

    def close(self) -> None:
        self._days.close()

    def _asked(
        self, plan: Plan, request: Request, context: int
    ) -> tuple[Size | None, int, int, Cap | None]:
        """The prompt's size and its tokens, how many tokens each choice may have, and the cap that says so, if
        the client did not."""
        sizes, cap = self._sizes, request.cap
        if not plan.tokens and sizes.max_prompt_tokens is None:
            return None, 0, 0, cap
        size = size_of(request)
        prompt = plan.estimates.prompt_tokens(size)
        if not plan.tokens:
            return size, prompt, 0, cap
        output = request.sampling.max_tokens if cap is None else cap.tokens
        if output is None:
            output = sizes.reserve_tokens
            cap = Cap(output, "reserve_tokens")
        if context and prompt + output > context:  # then the engine itself ends the answer
            output = max(1, context - prompt)
            cap = request.cap
        return size, prompt, output, cap


def _finished(generation: Generation, reservation: Reservation, end: Finish, now: float) -> int:
    """By the engine's count; what it did not count, by ours. Learns from it."""
    usage = end.usage
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    size = reservation.size
    if size is not None:  # else its tokens are not limited
        estimates = reservation.plan.estimates
        if prompt and not generation.turns:
            estimates.learn_prompt(size, prompt)
        if completion and usage.limited_by is None:
            choices = generation.request.choices
            estimates.learn_answer(completion, choices, now - generation.started_at)
    return (prompt or reservation.prompt) + (completion or _said(generation))


def _begun(generation: Generation, reservation: Reservation, end: Error, now: float) -> int:
    """What a generation has used that did not come to a good end."""
    said = _said(generation)
    if reservation.pace is not None:
        said += reservation.pace.unshown
    started_at = generation.started_at
    if said:
        return reservation.prompt + said
    if not started_at or end.code not in LEAVING:
        return 0
    if generation.prefilled >= 0:
        return min(reservation.prompt, generation.prefilled)
    if generation.request.stream or generation.durable:
        return reservation.prompt
    # Nothing of an answer that comes whole is known before its end but how long it was computed.
    likely = int((now - started_at) / reservation.plan.estimates.token_s)
    return reservation.prompt + min(likely, reservation.output)


def _said(generation: Generation) -> int:
    """Output tokens so far; where its engine's ids are not kept, as many as there were events."""
    if generation.said is None:
        return generation.seq if generation.last_token_at else 0
    return generation.said.tokens


def _tokens(events: Sequence[Event]) -> int:
    """Token events, pieces of one counted once."""
    return sum(type(event) is Token and not event.part for event in events)


def _raw_tokens(deltas: Sequence[Delta]) -> int:
    said = Said()
    said.remember([delta for delta in deltas if delta.prompt is None])
    return said.tokens
