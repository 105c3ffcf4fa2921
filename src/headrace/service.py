"""The way of a request through the rooms: admitted, queued, placed, run, ended; gone on with if need be.

One :class:`Service` a process, on the event loop thread. It decides nothing by itself: queues, placement,
keys and hooks do, each in its room. Every generation that :meth:`Service.submit` returned ends in exactly
one terminal event, or is found again by :meth:`Service.recover` after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from headrace.admission.aborts import AbortTokens
from headrace.admission.keys import Keys
from headrace.admission.read_tokens import ReadTokens
from headrace.domain.delta import Prefix
from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.domain.event import Error, Event, Finish, Prompt
from headrace.domain.ids import Ulids, find_ulid
from headrace.domain.request import Caller, Message, Request, less_tokens
from headrace.domain.tokens import Tokens
from headrace.engines.engine import Engine, Work
from headrace.flow import Flow
from headrace.going_on import NEVER_BEGAN, may_go_on
from headrace.prompting import add_prompt, rewrite_request
from headrace.protocols.port import Generation as AnyGeneration
from headrace.protocols.port import ModelCard
from headrace.routing.model import Models, Place
from headrace.streams.addition import over
from headrace.streams.generation import Generation
from headrace.streams.hook import HookContext
from headrace.streams.hooks import HookChain
from headrace.streams.hub import Hub
from headrace.streams.kept import Kept
from headrace.streams.log import Log
from headrace.streams.store import LogHeader, Recovered
from headrace.streams.topics import Topics
from headrace.tracing import Tracer

_logger = logging.getLogger("headrace.service")
_LEVELS = logging.getLevelNamesMapping()

TICK_S = 0.1
"""How often waiting times, graces and the engines' health are looked at."""


class Limits(msgspec.Struct, frozen=True):
    """``queue``: requests waiting for one model. Times in seconds: waiting at most, all in all at most."""

    queue: int = 1024
    queue_timeout_s: float = 300.0
    total_timeout_s: float = 3600.0


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
        tracer: Tracer | None = None,
    ) -> None:
        """``tracer``: None where nothing is recorded."""
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
        self._limits = limits
        self._aborts: AbortTokens[Generation] = AbortTokens()
        # Bounded by the queues' limits and the replicas' slots; in order of admission.
        self._running: dict[str, Generation] = {}
        self._alone: dict[str, Generation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ulids = Ulids()
        self._closing = self._stopped = False
        self._idle: asyncio.Event = asyncio.Event()

    # What protocols ask.

    def authenticate(self, key: str | None) -> str:
        return self._keys.tenant(key)

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
        request = flow.admit(request)
        now = time.time()
        generation_id = "gen_" + self._ulids.new(now)
        context = opening = None
        if self._chain is not None:
            context = HookContext(generation_id, request, caller)
            opening = self._chain.on_start(context)
        header = LogHeader(generation_id, now, request.model, request, caller, wire, wire_options)
        generation = self._begin(self._hub.create(header), flow, context, flow.keeps_raw)
        if opening is None and not self._rewrites:
            self._enqueue(generation, flow)
        else:
            self.spawn(self._enqueue_when_opened(generation, flow, opening))
        return generation

    async def find(self, any_id: str, tenant: str) -> AnyGeneration:
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

    def abort(self, token: str, tenant: str) -> int:
        found = self._aborts.find(tenant, token)
        for generation in found:
            self._cancel(generation, "Aborted by its abort token.")
        return len(found)

    def models(self) -> Sequence[ModelCard]:
        return [flow.card() for flow in self._flows.values()]

    def model(self, name: str) -> ModelCard:
        return self._flow_of(name).card()

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
        return going_on

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic`` seconds): engines' health, waiting times, graces."""
        for flow in self._flows.values():
            self._look_at_replicas(flow, now)
            self._end_waiting(flow, now)
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
        self._stopped = True  # nothing begins any more
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

    # The owner of generations.

    def run_failed(self, generation: Generation, error: HeadraceError) -> bool:
        place = self._free(generation)
        if generation.trace is not None:
            generation.trace.broke(error)
        flow = generation.flow
        if place is None or self._closing:
            return False
        now = time.monotonic()
        self._look_at_replicas(flow, now)
        if error.code in NEVER_BEGAN:
            flow.lost(place.replica, now)
        if not may_go_on(generation, error, place.replica, flow):
            return False
        self._log(generation, "goes on after %s: %s", error.code.value, error.message)
        generation.progress("moved")
        if generation.ended:  # that could not be stored
            return True
        if generation.trace is not None:
            generation.trace.moved()
        generation.waits_since = generation.waits_since or now
        flow.queue.push_front(generation, generation.waits_since)
        asyncio.get_running_loop().call_soon(self._pump, flow)
        return True

    def prompted(self, generation: Generation) -> None:
        """In the next turn of the loop: several prompts at once need one run."""
        if generation.trace is not None:
            generation.trace.prompted()
        if generation.place is not None:
            asyncio.get_running_loop().call_soon(self._start_again, generation)

    def ended(self, generation: Generation, end: Finish | Error) -> None:
        flow: Flow = generation.flow
        self._running.pop(generation.id, None)
        place: Place[Engine] | None = generation.place
        if place is None:
            flow.queue.remove(generation)
        else:
            generation.place = None
            place.free()
        if self._alone:
            self._alone.pop(generation.id, None)
        token = generation.caller.abort_token
        if token is not None:
            self._aborts.remove(generation.caller.tenant, token, generation)
        took_s = time.monotonic() - generation.admitted_at
        if type(end) is Finish:
            meter = flow.meters[generation.request.kind]
            meter.finished(end.reasons[0], took_s, end.usage)
        elif type(end) is Error:
            self._log(generation, "ended by %s: %s", end.code, end.message)
            meter = flow.meters[generation.request.kind]
            meter.failed(end.code, end.message, 0, took_s)
        if generation.trace is not None:
            generation.trace.ended(end)
        if self._news:
            self._topics.publish("generation", {"id": generation.id, "state": "ended", "end": end})
        if place is not None and flow.queue.waiting:
            self._pump(flow)
        if self._closing and not self._running:
            self._idle.set()

    @staticmethod
    def _log(generation: Generation, what: str, code: str, message: str) -> None:
        """What went wrong by our fault or an engine's; of clients' mistakes there would be too many."""
        level = MEANINGS[Code(code)].log_level
        if level != "info":
            caller = generation.caller
            trace_id, span_id = caller.trace.ids if caller.trace is not None else ("", "")
            extra = {
                "generation": generation.id,
                "request_id": caller.request_id,
                "trace_id": trace_id,
                "span_id": span_id,
                "model": generation.model,
                "tenant": caller.tenant,
                "code": code,
            }
            _logger.log(_LEVELS[level.upper()], what, code, message, extra=extra)

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
        self, log: Log, flow: Flow, context: HookContext | None, keep_raw: bool
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
        self._running[generation.id] = generation
        if generation.caller.trace is not None and self._tracer is not None:
            generation.trace = self._tracer.generation(generation, flow.model.name)
        token = generation.caller.abort_token
        if token is not None:
            self._aborts.add(generation.caller.tenant, token, generation)
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
                self._enqueue(generation, flow)

    # Queue and slots.

    def _enqueue(self, generation: Generation, flow: Flow) -> None:
        place = None if flow.queue.waiting else flow.model.place(generation.request.choices)
        if place is not None:
            if place.early or generation.durable:
                if place.early:
                    generation.progress("queued", position=place.early)
                else:
                    generation.progress("prefill")
                if generation.ended:  # that could not be stored
                    place.free()
                    return
            self._start(generation, flow, place)
            return
        try:
            position = flow.queue.push(generation, time.monotonic())
        except HeadraceError as error:
            generation.fail(error)
        else:
            generation.progress("queued", position=position)

    def _pump(self, flow: Flow) -> None:
        """Start who waits while there are slots."""
        while not self._stopped and (generation := flow.queue.first()) is not None:
            place = flow.model.place(generation.request.choices)
            if place is None:
                return
            flow.queue.next()
            self._start(generation, flow, place)

    def _start(self, generation: Generation, flow: Flow, place: Place[Engine]) -> None:
        if not generation.started_at:
            generation.started_at = now = time.monotonic()
            flow.meters[generation.request.kind].started(now - generation.admitted_at)
        generation.place = place
        request = generation.request
        prefixes: tuple[Prefix, ...] = ()
        if generation.raw:
            prefixes = generation.go_on()
            if generation.ended:  # its marker could not be stored
                return
            if generation.turns:
                request = less_tokens(request, generation.closed_tokens)
            limit = request.sampling.max_tokens
            if limit is not None and len(prefixes) == 1 and prefixes[0].tokens >= limit:
                generation.finish("length")
                return
        live = request.stream or generation.durable
        caller = generation.caller
        if generation.trace is not None:
            told = generation.trace.attempt(place.replica.name).lines
        elif caller.trace is not None:
            told = caller.trace.lines
        else:
            told = b"" if self._tracer is None else self._tracer.unrecorded()
        run = place.replica.engine.stream_infer(
            Work(request, prefixes, caller.exact or flow.exact, live, generation.turns, told),
            generation,
        )
        # A run that failed at once has given its place back already.
        if generation.ended:
            run.cancel()
        elif generation.place is place:
            generation.cancel_run = run.cancel

    def _start_again(self, generation: Generation) -> None:
        """In its place, with what was added to it; unless it has a run or its end by now."""
        place: Place[Engine] | None = generation.place
        if place is None or generation.cancel_run is not None or self._stopped:
            return
        if not (generation.ended or generation.closing):
            self._start(generation, generation.flow, place)

    def _free(self, generation: Generation) -> Place[Engine] | None:
        place: Place[Engine] | None = generation.place
        if place is not None:
            generation.place = None
            place.free()
        return place

    def _look_at_replicas(self, flow: Flow, now: float) -> None:
        changed = flow.look_at_replicas(now)
        if not changed:
            return
        if self._topics.wanted("engine"):
            for replica in changed:
                state = "ready" if replica.ready else "down"
                reason = replica.engine.health()[1]
                names = {"model": flow.model.name, "replica": replica.name}
                news = {"state": state, "reason": reason, **names}
                self._topics.publish("engine", news)
        self._pump(flow)

    # Endings.

    def _end_waiting(self, flow: Flow, now: float) -> None:
        """End those in the queue that have waited too long, or for nothing. What outlives its client is kept
        while there is no engine: the next start of the server may bring one."""
        queue = flow.queue
        if not flow.serving and queue.waiting and (hopeless := flow.hopeless()) is not None:
            for waiting in queue.items():
                if not waiting.durable:
                    self._fail(waiting, hopeless)
        for late in queue.overdue(now):
            if flow.serving or not late.durable:
                why = "" if flow.serving else f" ({flow.model.readiness()[1]})"
                text = f"No slot became free within {queue.timeout_s:g} s{why}; try again later."
                self._fail(late, HeadraceError(Code.QUEUE_TIMEOUT, text, retry_after_s=5.0))

    def _fail(self, generation: Generation, error: HeadraceError) -> None:
        """Out of the queue first: an async hook may hold its end back."""
        if generation.place is None:
            generation.flow.queue.remove(generation)
        generation.fail(error)

    def _cancel(self, generation: Generation, message: str) -> None:
        self._fail(generation, HeadraceError(Code.CANCELLED, message))

    def _end_overdue(self, now: float) -> None:
        limit = self._limits.total_timeout_s
        while self._running:
            oldest = next(iter(self._running.values()))
            if now - oldest.admitted_at <= limit:
                return
            del self._running[oldest.id]  # or it is found again while its end is held back
            text = f"It took longer than the limit of {limit:g} s."
            self._fail(oldest, HeadraceError(Code.GENERATION_TIMEOUT, text))

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
        except HeadraceError:
            return self._interrupt(log, f"Model {header.model} is no longer served.")
        if not self._lives_on(recovered):
            return self._interrupt(log, "The server was restarted; send it again.")
        context = None
        if self._chain is not None:
            context = HookContext(header.id, header.request, header.caller)
        generation = self._begin(log, flow, context, keep_raw=True)
        try:
            generation.rebuild(recovered.raw)
        except HeadraceError as error:
            generation.end_without_hooks(error)
            return False
        self._stay(generation, recovered)
        flow.queue.push_front(generation, time.monotonic())
        return True

    def _interrupt(self, log: Log, message: str) -> bool:
        """End a log that nobody goes on with."""
        code = Code.INTERRUPTED
        seq = log.appended_seq + 1
        end = Error(seq, time.time(), code.value, message, MEANINGS[code].retryable)
        log.append([end])
        if self._tracer is not None:
            self._tracer.interrupted(log.header, end)
        return False

    def _stay(self, generation: Generation, recovered: Recovered) -> None:
        """A generation with a grace goes on alone; its grace runs from when its client left."""
        if generation.caller.leaving.grace_s is None:
            return
        away_s = time.time() - recovered.left_at if recovered.left_at is not None else 0.0
        generation.left_at = time.monotonic() - away_s
        self._alone[generation.id] = generation

    @staticmethod
    def _lives_on(recovered: Recovered) -> bool:
        leaving = recovered.header.caller.leaving
        if not leaving.durable:
            return False
        if leaving.grace_s is None or recovered.left_at is None:
            return True
        return time.time() - recovered.left_at <= leaving.grace_s

    def _ready_engine(self, model: str) -> Engine:
        """One that can be asked about its model. Raises ``MODEL_NOT_FOUND`` and ``MODEL_LOADING``."""
        for replica in self._models.find(model).replicas:
            if replica.ready:
                return replica.engine
        raise HeadraceError(Code.MODEL_LOADING, "The model is not ready yet.", retry_after_s=1.0)

    def _flow_of(self, model: str) -> Flow:
        """Raises ``MODEL_NOT_FOUND``."""
        return self._flows.get(model) or self._flows[self._models.find(model).name]


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
