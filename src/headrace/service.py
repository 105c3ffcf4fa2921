"""The way of a request through the rooms: admitted, queued, placed, run, ended; gone on with if need be.

One :class:`Service` a process, on the event loop thread. It decides nothing by itself: queues, placement,
keys and hooks do, each in its room. Every generation that :meth:`Service.submit` returned ends in exactly
one terminal event, or is found again by :meth:`Service.recover` after a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from headrace.admission.aborts import AbortTokens
from headrace.admission.keys import Keys
from headrace.admission.plan import Plan, Reservation
from headrace.admission.read_tokens import ReadTokens
from headrace.admission.tenants import Tenants
from headrace.attaining import refused, watch
from headrace.dispatch import Dispatcher
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Event, Finish, Prompt
from headrace.domain.ids import Ulids, find_ulid
from headrace.domain.principal import Principal, Scope
from headrace.domain.request import Caller, Message, Request
from headrace.domain.tokens import Tokens
from headrace.engines.engine import Engine
from headrace.flow import Flow
from headrace.joining import Joining
from headrace.limiting import Limiting
from headrace.prompting import add_prompt, rewrite_request
from headrace.protocols.port import Generation as AnyGeneration
from headrace.protocols.port import ModelCard
from headrace.recovery import interrupt, left_at, lives_on
from headrace.reporting import report
from headrace.routing.model import Models
from headrace.streams.addition import over
from headrace.streams.generation import Generation
from headrace.streams.hook import HookContext
from headrace.streams.hooks import HookChain
from headrace.streams.hub import Hub
from headrace.streams.kept import Kept
from headrace.streams.log import Log
from headrace.streams.store import LogHeader, Recovered
from headrace.streams.topics import Topics
from headrace.tickets import Tickets
from headrace.tracing import Tracer

TICK_S = 0.1
"""How often waiting times, graces and the engines' health are looked at."""


class Limits(msgspec.Struct, frozen=True):
    """``queue``: requests waiting for one model. Times in seconds: waiting at most, all in all at most.
    ``join_retries_s``: how long the same body is taken for the same request; 0: never."""

    queue: int = 1024
    queue_timeout_s: float = 300.0
    total_timeout_s: float = 3600.0
    join_retries_s: float = 0.0


class TensorModels(Protocol):
    """Models that take tensors: listed with those that generate, and asked for by other protocols."""

    def cards(self) -> Sequence[ModelCard]: ...

    def card(self, name: str) -> ModelCard | None:
        """By name or alias; None for what is no such model."""


class Service:
    """Implements ``protocols.port.Service`` and is the ``Owner`` of all generations."""

    def __init__(
        self,
        flows: Sequence[Flow],
        hub: Hub,
        *,
        keys: Keys,
        read_tokens: ReadTokens,
        chain: HookChain | None,
        topics: Topics,
        limits: Limits,
        limiting: Limiting | None = None,
        tenants: Tenants | None = None,
        tracer: Tracer | None = None,
        tensors: TensorModels | None = None,
    ) -> None:
        """``limiting``: None where nobody is limited. ``tenants``: None where all have the same terms. ``tracer``:
        None where nothing is recorded. ``tensors``: None without models that take tensors."""
        self._tensors = tensors
        self._tracer = tracer
        self._flows = {flow.model.name: flow for flow in flows}
        self._models = Models([flow.model for flow in flows])
        self._hub = hub
        self._keys = keys
        self._read_tokens = read_tokens
        self._chain = chain
        self._rewrites = chain is not None and chain.rewrites
        self._topics = topics
        self._news = topics.subscribers("generation")
        self.limits = limits
        self._limiting = limiting or Limiting()
        self._tenants = tenants or Tenants()
        self._aborts: AbortTokens[Generation] = AbortTokens()
        # Bounded by the queues' limits and the replicas' slots; in order of admission.
        self._running: dict[str, Generation] = {}
        self._alone: dict[str, Generation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._joining = Joining(hub.store, self.find, limits.join_retries_s)
        self._ulids = Ulids()
        self._closing = False
        tickets = Tickets(self._tenants.of)
        parts = [part for flow in flows for part in flow.parts]
        self._dispatcher = Dispatcher(parts, topics, self._limiting, tickets, tracer)
        self._idle: asyncio.Event = asyncio.Event()

    # What protocols ask.

    @property
    def open(self) -> bool:
        return self._keys.open

    def authenticate(
        self, key: str | None, scope: Scope, names: tuple[str, ...] | None = None
    ) -> Principal:
        return self._keys.principal(key, scope, names)

    def reader(self, token: str, any_id: str) -> str:
        return self._read_tokens.tenant(token, find_ulid(any_id) or "", time.time())

    def read_token(self, generation: AnyGeneration) -> tuple[str, int]:
        ulid = find_ulid(generation.id) or ""
        return self._read_tokens.issue(ulid, generation.caller.tenant, time.time())

    def submit(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> Generation:
        if self._closing:
            raise _shutting_down()
        flow = self._flow_of(request.model)
        if caller.urgency is not None:
            flow = flow.for_urgency(caller.urgency)
        overflow = self._tenants.of(caller.tenant).overflow
        if overflow == "spill" and flow.fallback is not None and flow.overflows(request.choices):
            flow = self._flow_of(flow.fallback)
            request = msgspec.structs.replace(request, model=flow.model.name)
        try:
            request = flow.admit(request, overflow)
            now = time.time()
            generation_id = "gen_" + self._ulids.new(now)
            request, reservation = self._limiting.reserve(generation_id, request, caller, flow, now)
        except HeadraceError as error:
            refused(flow, request, caller, self._tenants.targets.get(caller.tenant), error)
            raise
        context = opening = None
        try:
            if self._chain is not None:
                context = HookContext(generation_id, request, caller)
                opening = self._chain.on_start(context)
            name = request.model
            header = LogHeader(generation_id, now, name, request, caller, wire, wire_options)
            log = self._hub.create(header)
        except BaseException:
            if reservation is not None:
                reservation.settle(0, time.monotonic())
            raise
        generation = self._begin(log, flow, context, flow.keeps_raw, reservation)
        if self._tenants.targets or caller.urgency is not None:
            watch(generation, self._tenants.targets.get(caller.tenant))
        if opening is None and not self._rewrites:
            self._dispatcher.enqueue(generation, flow)
        else:
            self.spawn(self._enqueue_when_opened(generation, flow, opening))
        return generation

    def joins(self, request: Request, caller: Caller) -> bool:
        flow = self._flows.get(request.model)
        shares = flow is not None and flow.shares
        return self._joining.concerns(request, caller, shares=shares)

    async def submit_once(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> AnyGeneration:
        flow = self._flow_of(request.model)

        def begin(caller: Caller, key: str) -> Generation:
            generation = self.submit(request, caller, wire, wire_options)
            if not generation.ended:
                self._joining.began(generation, key)
            return generation

        found = await self._joining.join(
            request, caller, (wire, wire_options), shares=flow.shares, begin=begin
        )
        if isinstance(found, Kept):
            found.reservation = self._limiting.plan(caller, flow.model.name)
        return found

    async def find(self, any_id: str, tenant: str) -> Generation | Kept:
        found = find_ulid(any_id)
        if found is None:
            raise _not_found(any_id)
        running = self._running.get("gen_" + found)
        if running is not None:
            if running.caller.tenant != tenant:
                raise _not_found(any_id)
            return running
        try:
            log = await self._hub.find("gen_" + found)
        except HeadraceError as error:
            if error.code is Code.GENERATION_NOT_FOUND:
                raise _not_found(any_id) from None  # nobody hears of others' by another word
            raise
        if log.header.caller.tenant != tenant:
            raise _not_found(any_id)
        return Kept(log)

    async def list(
        self, tenant: str, session_id: str | None, limit: int
    ) -> Sequence[AnyGeneration]:
        headers = await self._hub.list(tenant, session_id, limit)
        found: list[AnyGeneration] = []
        for header in headers:
            try:
                found.append(await self.find(header.id, tenant))
            except HeadraceError:
                continue  # dropped by the store's bounds since it was listed
        return found

    async def prompt(self, generation: AnyGeneration, message: Message) -> Sequence[Prompt]:
        running = self._running.get(generation.id)
        if running is None:
            raise over(generation.id)
        if self._closing:
            raise _shutting_down()
        self._limiting.prompted(running, message)
        return await add_prompt(running, message)

    def cancel(self, generation: AnyGeneration) -> None:
        running = self._running.get(generation.id)
        if running is not None:
            self._cancel(running, "Cancelled on request.")

    async def delete(self, generation: AnyGeneration) -> None:
        running = self._running.get(generation.id)
        if running is not None:
            end = _End()
            running.attach(end, client=False)
            self.cancel(running)
            await end.come.wait()  # an async hook may hold it back
        await self._hub.delete(generation.id)

    async def caught_up(self) -> None:
        await self._hub.store.caught_up()

    def abort(self, token: str, tenant: str) -> int:
        found = self._aborts.find(tenant, token)
        for generation in found:
            self._cancel(generation, "Aborted by its abort token.")
        return len(found)

    def models(self) -> Sequence[ModelCard]:
        generating = [flow.card() for flow in self._flows.values()]
        return generating if self._tensors is None else [*generating, *self._tensors.cards()]

    def model(self, name: str) -> ModelCard:
        card = None if self._tensors is None else self._tensors.card(name)
        return card or self._flow_of(name).card()

    def rows_at_once(self, model: str) -> tuple[str, int]:
        flow = self._flow_of(model)
        return flow.model.name, flow.rows_at_once

    def take_request(self, model: str, tenant: str, key_id: str) -> Plan | None:
        self._ready_engine(model)  # a request that nobody can answer is not counted
        return self._limiting.take_request(tenant, key_id, self._flow_of(model).model.name)

    async def tokenize(self, model: str, text: str, *, special: bool, pieces: bool) -> Tokens:
        return await self._ready_engine(model).tokenize(text, special=special, pieces=pieces)

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        return await self._ready_engine(model).detokenize(tokens)

    async def count_prompt(self, request: Request) -> int:
        engine = self._ready_engine(request.model)
        engine.check(request)
        return await engine.count_prompt(request)

    def readiness(self) -> tuple[bool, str]:
        if self._closing:
            return False, "shutting down"
        states = [model.readiness() for model in self._models.all]
        if self._tensors is not None:
            states += [(card.ready, card.reason) for card in self._tensors.cards()]
        if not states:
            return False, "no model is configured"
        if any(ready for ready, _ in states):
            return True, ""
        return False, "; ".join(reason for _, reason in states)

    # What the app asks.

    @property
    def busy(self) -> bool:
        """Whether a generation is running or waiting."""
        return bool(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that this service owns until it is done or the service closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def recover(self, found: Sequence[Recovered]) -> int:
        """Take over what a crash left: go on with what may, end the rest; returns how many go on."""
        going_on = 0
        for recovered in reversed(found):  # each joins at the front: the oldest last
            going_on += self._recover(recovered)
        self._limiting.forget_lost(found)
        return going_on

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic`` seconds): engines' health, waiting times, graces."""
        self._dispatcher.tick(now)
        self._end_overdue(now)
        self._end_abandoned(now)

    async def close(self, grace_s: float) -> None:
        """Refuse new work, let running work finish for ``grace_s`` seconds, then stop the rest.
        Generations that may go on after a restart keep their log open; the others end."""
        self._closing = True
        if self._running and grace_s > 0:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                pass
        self._dispatcher.stopped = True
        for generation in list(self._running.values()):
            if generation.durable:
                generation.stop_run()
            else:
                generation.fail(
                    HeadraceError(Code.INTERRUPTED, "The server was stopped; send it again.")
                )
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._limiting.close()

    # The owner of generations.

    def run_failed(self, generation: Generation, error: HeadraceError) -> bool:
        return self._dispatcher.run_failed(generation, error, final=self._closing)

    def prefilling(self, generation: Generation) -> None:
        self._dispatcher.prefilling(generation)

    def first_token(self, generation: Generation) -> None:
        self._dispatcher.first_token(generation)

    def prompted(self, generation: Generation) -> None:
        if generation.trace is not None:
            generation.trace.prompted()
        self._dispatcher.begin_again(generation)

    def ending(self, generation: Generation, end: Finish | Error) -> None:
        self._limiting.settle(generation, end)

    def ended(self, generation: Generation, end: Finish | Error) -> None:
        flow: Flow = generation.flow
        self._running.pop(generation.id, None)
        if self._alone:
            self._alone.pop(generation.id, None)
        if generation.join_key is not None:
            self._joining.ended(generation)
        if generation.caller.abort_token is not None:
            self._aborts.remove(generation.caller.tenant, generation.caller.abort_token, generation)
        took_s = time.monotonic() - generation.admitted_at
        if type(end) is Finish:
            meter = flow.meters[generation.request.kind]
            meter.finished(end.reasons[0], took_s, end.usage)
        elif type(end) is Error:
            report(generation, "ended by %s: %s", end.code, end.message)
            meter = flow.meters[generation.request.kind]
            meter.failed(end.code, end.message, 0, took_s)
        if generation.watched is not None:
            generation.watched.ended(generation, end)
        if generation.trace is not None:
            generation.trace.ended(end)
        if self._news:
            self._topics.publish("generation", {"id": generation.id, "state": "ended", "end": end})
        self._dispatcher.ended(generation, flow, end)
        if self._closing and not self._running:
            self._idle.set()

    def left(self, generation: Generation) -> None:
        leaving = generation.caller.leaving
        if leaving.grace_s is None:
            return
        if leaving.grace_s <= 0:
            self._cancel(generation, "The client left.")
            return
        generation.left_at = time.monotonic()
        self._alone[generation.id] = generation
        generation.log.left(time.time())

    # Admission.

    def _begin(
        self,
        log: Log,
        flow: Flow,
        context: HookContext | None,
        keep_raw: bool,
        reservation: Reservation | None,
    ) -> Generation:
        """A generation on its log, found by its abort token from now on."""
        meter = flow.meters[log.header.request.kind]
        meter.admitted_count += 1
        generation = Generation(
            log,
            self,
            chain=self._chain,
            context=context,
            meter=meter,
            flow=flow,
            keep_raw=keep_raw,
        )
        generation.reservation = reservation
        self._running[generation.id] = generation
        if generation.caller.trace is not None and self._tracer is not None:
            generation.trace = self._tracer.generation(generation, flow.model.name)
        if generation.caller.abort_token is not None:
            self._aborts.add(generation.caller.tenant, generation.caller.abort_token, generation)
        if self._news:
            self._topics.publish("generation", {"id": generation.id, "state": "admitted"})
        return generation

    async def _enqueue_when_opened(self, generation: Generation, flow: Flow, opening: Any) -> None:
        try:
            if opening is not None:
                await opening
            if self._rewrites:
                await rewrite_request(generation)
        except HeadraceError as error:
            generation.fail(error)
        else:
            if not generation.ended:
                self._dispatcher.enqueue(generation, flow)

    # Endings.

    def _cancel(self, generation: Generation, message: str) -> None:
        self._dispatcher.fail(generation, HeadraceError(Code.CANCELLED, message))

    def _end_overdue(self, now: float) -> None:
        limit = self.limits.total_timeout_s
        while self._running:
            oldest = next(iter(self._running.values()))
            if now - oldest.admitted_at <= limit:
                return
            del self._running[oldest.id]  # or it is found again while its end is held back
            text = f"It took longer than the limit of {limit:g} s."
            self._dispatcher.fail(oldest, HeadraceError(Code.GENERATION_TIMEOUT, text))

    def _end_abandoned(self, now: float) -> None:
        for generation in list(self._alone.values()):
            grace_s = generation.caller.leaving.grace_s or 0.0
            if generation.clients:
                self._alone.pop(generation.id, None)
                generation.log.left(None)
            elif generation.left_at is not None and now - generation.left_at > grace_s:
                self._cancel(generation, f"The client left {grace_s:g} s ago and did not return.")

    # After a crash.

    def _recover(self, recovered: Recovered) -> bool:
        header = recovered.header
        log = self._hub.adopt(header, recovered.events)
        try:
            flow = self._flow_of(header.model)
            if header.caller.urgency is not None:
                flow = flow.for_urgency(header.caller.urgency)
        except HeadraceError:
            self._limiting.died(header.id, recovered.events, recovered.raw)
            interrupt(log, f"Model {header.model} is no longer served.", self._tracer)
            return False
        if not lives_on(recovered):
            self._limiting.died(header.id, recovered.events, recovered.raw)
            interrupt(log, "The server was restarted; send it again.", self._tracer)
            return False
        context = None
        if self._chain is not None:
            context = HookContext(header.id, header.request, header.caller)
        reservation = self._limiting.resume(header.id, header.request, header.caller, flow)
        generation = self._begin(log, flow, context, True, reservation)
        if header.caller.once is not None:
            self._joining.began(generation, header.caller.once.key)
        try:
            generation.rebuild(recovered.raw)
        except HeadraceError as error:
            generation.end_without_hooks(error)
            return False
        if generation.caller.leaving.grace_s is not None:
            generation.left_at = left_at(recovered)
            self._alone[generation.id] = generation
        self._dispatcher.rejoin(generation, time.monotonic())
        return True

    def _ready_engine(self, model: str) -> Engine:
        """One that can be asked about its model. Raises as :meth:`_flow_of`, and ``MODEL_LOADING``."""
        for replica in self._flow_of(model).model.replicas:
            if replica.up:
                return replica.engine
        raise HeadraceError(Code.MODEL_LOADING, "The model is not ready yet.", retry_after_s=1.0)

    def _flow_of(self, model: str) -> Flow:
        """Raises ``MODEL_NOT_FOUND``, and ``UNSUPPORTED`` for a model that takes tensors."""
        return self._flows.get(model) or self._flow_by_alias(model)

    def _flow_by_alias(self, model: str) -> Flow:
        if self._tensors is not None and self._tensors.card(model) is not None:
            text = f"The model {model} takes tensors (/v2) and generates no text."
            raise HeadraceError(Code.UNSUPPORTED, text, param="model")
        return self._flows[self._models.find(model).name]


def _not_found(any_id: str) -> HeadraceError:
    """Never a variable of who raises it: an error holds frames, and a frame that holds it is a cycle."""
    said = f"There is no generation {any_id[:80]!r} of yours here."
    return HeadraceError(Code.GENERATION_NOT_FOUND, said)


def _shutting_down() -> HeadraceError:
    return HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down.", retry_after_s=5.0)


class _End:
    """The reader that only waits for the end of a log."""

    def __init__(self) -> None:
        self.come = asyncio.Event()

    def events(self, events: Sequence[Event]) -> bool:
        if events[-1].end is not None:
            self.come.set()
        return True

    def lost(self, error: HeadraceError) -> None:
        self.come.set()
