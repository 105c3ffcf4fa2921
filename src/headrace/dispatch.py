"""When and where a generation runs: from its model's queue into a slot of a replica, as often as it takes.

One :class:`Dispatcher` a process, on the event loop thread. Who is next is the queue's decision, where is
the model's; this carries both out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from math import inf, nan

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.request import capped, less_tokens
from headrace.engines.engine import Engine, Work
from headrace.flow import Flow
from headrace.giving_way import in_line, line_at, stand_last, who_gives_way
from headrace.going_on import BUSY, NEVER_BEGAN, may_go_on
from headrace.limiting import Limiting
from headrace.reporting import report
from headrace.routing.model import Place
from headrace.scheduling.policy import Ticket
from headrace.scheduling.queue import LATER_S, Overflow
from headrace.streams.generation import Generation
from headrace.streams.topics import Topics
from headrace.tickets import Tickets
from headrace.tracing import Tracer

SOON_S = 1.0
"""Who is pressed so soon is looked at then, and not at the next tick only."""
TELL_S = 1.0
"""How often those who wait may hear of another position."""
MOST_TOLD = 1000
NEAR = 10
"""Positions of which every change is told."""


class Dispatcher:
    """Starts, moves and takes back the runs of generations. ``stopped``: nothing begins any more."""

    def __init__(
        self,
        flows: Sequence[Flow],
        topics: Topics,
        limiting: Limiting,
        tickets: Tickets,
        tracer: Tracer | None = None,
    ) -> None:
        self._tickets = tickets
        self._tracer = tracer
        self._flows = flows
        self._topics = topics
        self._limiting = limiting
        self.stopped = False
        for flow in flows:
            for replica in flow.model.replicas:
                replica.on_room = partial(self._pump_soon, flow)

    def enqueue(self, generation: Generation, flow: Flow) -> None:
        """Start it, or let it wait; what the queue refuses ends."""
        place = self._express(generation, flow)
        if place is None and not flow.queue.waiting:
            place = flow.model.place(generation.request.choices)
        if place is not None:
            if place.early or generation.durable:
                if place.early:
                    self._begin_to_account(flow, time.monotonic())
                    self._tickets.give(generation, flow.estimates)
                    generation.progress("queued", position=place.early)
                else:
                    generation.progress("prefill")
                if generation.ended:  # that could not be stored
                    place.free()
                    return
            self._start(generation, flow, place)
            if place.early:
                self._relieve(flow, time.monotonic())
                self._look_when_pressed(generation, flow)
            return
        now = time.monotonic()
        self._begin_to_account(flow, now)
        ticket = self._tickets.give(generation, flow.estimates)
        overflow = self._tickets.tenant(generation.caller.tenant).overflow
        try:
            position, gave_way = flow.queue.push(generation, ticket, now, Overflow(overflow))
        except HeadraceError as error:
            generation.fail(error)
            return
        if gave_way is not None:
            gave_way.fail(_shed(flow.queue.room_s(now, LATER_S)))
        self._tell(generation, position, now)
        self._pump(flow)
        if generation.place is None:
            self._look_when_pressed(generation, flow)

    def _look_when_pressed(self, generation: Generation, flow: Flow) -> None:
        """At the next tick, or at once where that may be too late."""
        in_s = generation.ticket.pressed_at - time.monotonic()
        if 0 < in_s < (SOON_S if flow.express is None else inf):
            # By its id: what is over by then is not kept in memory for that.
            asyncio.get_running_loop().call_later(in_s, self._press, generation.id, flow)

    def _press(self, waiting_id: str, flow: Flow) -> None:
        """It is pressed now, if it still waits."""
        self._look(flow)
        wait = flow.queue.waiting.get(waiting_id)
        if wait is not None:
            self._hurry(wait.item, flow)

    def _hurry(self, generation: Generation, flow: Flow) -> None:
        if generation.place is None and generation.id in flow.queue.waiting:
            place = self._express(generation, flow)
            if place is not None:
                self._serve(generation, flow, place, time.monotonic())

    def _hurry_missed(self, flow: Flow) -> None:
        """Those that found no place for who hurries; there is one now."""
        if flow.express is not None:
            missed = list(flow.express.missed)
            flow.express.missed.clear()
            for generation in missed:
                self._hurry(generation, flow)

    def _look(self, flow: Flow) -> None:
        self._pump(flow)
        self._relieve(flow, time.monotonic())

    def rejoin(self, generation: Generation, now: float) -> None:
        """It waits for another run."""
        self._rejoin(generation, now, now)

    def _rejoin(self, generation: Generation, since: float, now: float) -> None:
        flow: Flow = generation.flow
        self._begin_to_account(flow, now)
        ticket = generation.ticket or self._tickets.give(generation, flow.estimates)
        flow.queue.rejoin(generation, ticket, since, now)

    def _begin_to_account(self, flow: Flow, now: float) -> None:
        """The first one is about to wait: who runs is charged from now on, with what it has had. While nobody
        waits, who takes what takes it from nobody, and is not charged."""
        if flow.queue.waiting:
            return
        for generation in flow.running.values():
            if generation.ticket is None:
                ticket = self._tickets.give(generation, flow.estimates)
                ticket.replica = generation.place.replica.name
                flow.queue.policy.began(ticket, now)
                ticket.began_at = nan  # it began before
        flow.charge(now)

    def begin_again(self, generation: Generation) -> None:
        """In its place, in the next turn of the loop: several prompts at once need one run."""
        if generation.place is not None:
            asyncio.get_running_loop().call_soon(self._start_again, generation)

    def run_failed(self, generation: Generation, error: HeadraceError, *, final: bool) -> bool:
        """Its run broke: give its place back and let it wait for another run, if it may. ``final``: it may
        not. Returns whether it does."""
        place = self._free(generation)
        if generation.trace is not None:
            generation.trace.broke(error)
        flow = generation.flow
        if place is None or final:
            return False
        now = time.monotonic()
        self._look_at_replicas(flow, now)
        busy = error.code in BUSY
        if busy:
            place.replica.refused(now, error.retry_after_s)
        elif error.code in NEVER_BEGAN:
            flow.lost(place.replica, now)
        if generation.ticket is not None and (busy or error.code in NEVER_BEGAN):
            flow.queue.policy.refused(generation.ticket)
        if not may_go_on(generation, error, place.replica, flow):
            return False
        if not busy:
            report(generation, "goes on after %s: %s", error.code.value, error.message)
            generation.progress("moved")
            if generation.ended:  # that could not be stored
                return True
        if generation.trace is not None:
            generation.trace.moved()
        generation.waits_since = generation.waits_since or now
        self._rejoin(generation, generation.waits_since, now)
        if busy and not generation.told[0]:
            self._tell(generation, len(flow.queue), now)
        self._pump_soon(flow)
        return True

    @staticmethod
    def prefilling(generation: Generation) -> None:
        """Its engine has begun with its prompt: what stood in the engine's own line stood there until now."""
        place, ticket = generation.place, generation.ticket
        if place is not None and place.early and ticket.began_at == ticket.began_at:
            ticket.began_at = time.monotonic()

    def first_token(self, generation: Generation) -> None:
        """Its first token came, as it was computed."""
        ticket: Ticket | None = generation.ticket
        if ticket is not None and not ticket.silent:
            flow: Flow = generation.flow
            flow.queue.policy.first_token(ticket, time.monotonic())
            ticket.begun = True

    def ended(self, generation: Generation, flow: Flow, end: Finish | Error) -> None:
        """It needs no place any more: somebody else gets it."""
        if generation.ticket is not None and type(end) is Finish:
            flow.settle(generation, end.usage)
        if self._free(generation) is None:
            flow.queue.remove(generation)
        elif flow.queue.waiting:
            self._pump(flow)

    def fail(self, generation: Generation, error: HeadraceError) -> None:
        """End it, out of the queue first: an async hook may hold its end back."""
        if generation.place is None:
            generation.flow.queue.remove(generation)
        generation.fail(error)

    def tick(self, now: float) -> None:
        """Look at engines' health and waiting times. ``now``: monotonic seconds."""
        for flow in self._flows:
            self._look_at_replicas(flow, now)
            if flow.queue.waiting:
                self._end_waiting(flow, now)
                self._tell_waiting(flow, now)
            self._look(flow)

    def _pump(self, flow: Flow) -> None:
        """Start who waits while there are slots."""
        queue = flow.queue
        if self.stopped or not queue.waiting:
            return
        now = time.monotonic()
        flow.charge(now)
        while (generation := queue.first(now)) is not None:
            paused: Generation | None = None
            choices = generation.request.choices
            place = self._express(generation, flow) or flow.model.place(choices)
            if place is None:
                paused = self._paused_for(generation, flow, now)
                place = None if paused is None else flow.model.place(choices)
            if place is not None:
                self._serve(generation, flow, place, now)
            if paused is not None and not paused.ended:
                queue.rejoin(paused, paused.ticket, now, now)
            if place is None:
                break
        self._relieve(flow, now)

    def _serve(self, generation: Generation, flow: Flow, place: Place[Engine], now: float) -> None:
        """It waited, and begins."""
        wait = flow.queue.serve(generation, now)
        if wait is None:  # somebody's end has started or ended it meanwhile
            place.free()
            return
        foreseen = generation.foreseen
        if foreseen is not None:
            eta_s, told_at = foreseen
            generation.foreseen = None
            flow.meters[generation.request.kind].waited(eta_s, now - told_at)
        self._start(generation, flow, place)

    def _express(self, generation: Generation, flow: Flow) -> Place[Engine] | None:
        """A place beside all others, for one that is short of time while they have the slots."""
        express = flow.express
        if express is None or self.stopped or not express.may_take(generation):
            return None
        now = time.monotonic()
        self._begin_to_account(flow, now)
        if generation.ticket is None:
            self._tickets.give(generation, flow.estimates)
        return express.place(generation, now)

    def _relieve(self, flow: Flow, now: float) -> None:
        """Who is pressed and stands in an engine's own line has others before it that took their slots in
        turn: it goes past all of them, or those before it in the line and one of those with a slot give way."""
        for replica in flow.model.replicas:
            if replica.early and not self.stopped:
                for generation in line_at(replica, flow):
                    self._let_pass(generation, flow, now)

    def _let_pass(self, generation: Generation, flow: Flow, now: float) -> None:
        place = generation.place
        if place is None or not in_line(generation):  # by what was done for another
            return
        self._begin_to_account(flow, now)
        flow.charge(now)
        express = self._express(generation, flow)
        if express is not None:
            generation.stop_run()
            self._free(generation, now)
            self._start(generation, flow, express)
            return
        while generation in (line := line_at(place.replica, flow)):
            paused = self._paused_for(generation, flow, now)
            if paused is None:
                return
            if paused not in line:  # the engine gives its slot to the first
                line[0].place.early = 0
            if not paused.ended:
                self._rejoin(paused, now, now)

    def _pump_soon(self, flow: Flow) -> None:
        """In the next turn of the loop: engines are not asked for more in the middle of what they say."""
        asyncio.get_running_loop().call_soon(self._pump, flow)

    def _paused_for(self, generation: Generation, flow: Flow, now: float) -> Generation | None:
        """One that runs and gives its place to this one: it goes on later from its log."""
        paused = who_gives_way(generation, flow, now)
        if paused is not None:
            paused.stop_run()
            self._free(paused, now)
            if paused.trace is not None:
                paused.trace.moved()
            paused.progress("paused")
        return paused

    def _tell(self, generation: Generation, position: int, now: float) -> None:
        """Its client hears where it stands, and how long that may take."""
        generation.told = position, now
        flow: Flow = generation.flow
        eta_s = flow.queue.eta_s(position, now)
        if eta_s is not None and generation.foreseen is None:
            generation.foreseen = eta_s, now
        generation.progress("queued", position=position, eta_s=eta_s)

    def _tell_waiting(self, flow: Flow, now: float) -> None:
        """Positions that have changed. Far back in the queue only what has changed much is told."""
        if now - flow.told_at < TELL_S:
            return
        flow.told_at = now
        for position, generation in enumerate(flow.queue.ranked(now, MOST_TOLD), 1):
            last, _ = generation.told
            if position < last and (position <= NEAR or position <= 0.8 * last):
                self._tell(generation, position, now)

    def _start(self, generation: Generation, flow: Flow, place: Place[Engine]) -> None:
        now = time.monotonic()
        if not generation.started_at:
            generation.started_at = now
            flow.meters[generation.request.kind].started(now - generation.admitted_at)
            if flow.express is not None:
                flow.express.began(generation, self._tickets.tenant(generation.caller.tenant), now)
        generation.place = place
        place.seq = generation.seq
        flow.running[generation.id] = generation
        ticket: Ticket | None = generation.ticket
        if ticket is not None:
            ticket.replica = place.replica.name
            flow.queue.policy.began(ticket, now)
        request = generation.request
        if request.cap is not None:
            request = capped(request)
        prefixes: tuple[Prefix, ...] = ()
        turns: tuple[Turn, ...] = ()
        said = generation.said
        if said is not None and said.begun:
            prefixes, turns = generation.go_on(), said.turns
            if generation.ended:  # its marker could not be stored
                return
            if turns:
                request = less_tokens(request, said.closed_tokens)
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
        engine = place.replica.engine
        work = Work(request, prefixes, caller.exact or flow.exact, live, turns, told)
        if generation.reservation is None:
            run = engine.stream_infer(work, generation)
        else:
            run = self._limiting.start(engine, work, generation, self._computed)
        # A run that failed at once has given its place back already.
        if generation.ended:
            run.cancel()
        elif generation.place is place:
            generation.cancel_run = run.cancel

    def _start_again(self, generation: Generation) -> None:
        """With what was added to it; unless it has a run or its end by now."""
        place: Place[Engine] | None = generation.place
        if place is None or generation.cancel_run is not None or self.stopped:
            return
        if generation.ended or generation.closing:
            return
        if place.taken:
            stand_last(generation, generation.flow)
            self._start(generation, generation.flow, place)
        else:  # others have it by now
            self._free(generation)
            self.rejoin(generation, time.monotonic())
            self._pump(generation.flow)

    def _computed(self, generation: Generation) -> None:
        """The engine is done, and not all is shown: its slot is free for others, and nobody gets one by pausing it."""
        place: Place[Engine] | None = generation.place
        if place is not None:
            place.free()
            flow: Flow = generation.flow
            self._leave(generation, flow)
            if flow.queue.waiting:
                self._pump(flow)

    def _leave(self, generation: Generation, flow: Flow, now: float | None = None) -> None:
        """It has left its engine; without effect for one that had before."""
        if flow.running.pop(generation.id, None) is not None and generation.ticket is not None:
            flow.left(generation, time.monotonic() if now is None else now)
        if flow.express is not None and flow.express.missed:
            asyncio.get_running_loop().call_soon(self._hurry_missed, flow)

    def _free(self, generation: Generation, now: float | None = None) -> Place[Engine] | None:
        place: Place[Engine] | None = generation.place
        if place is not None:
            generation.place = None
            place.free()
            self._leave(generation, generation.flow, now)
        return place

    def _look_at_replicas(self, flow: Flow, now: float) -> None:
        changed = flow.look_at_replicas(now)
        if not changed:
            return
        if self._topics.wanted("engine"):
            for replica in changed:
                state = "ready" if replica.up else "down"
                reason = replica.engine.health()[1]
                names = {"model": flow.model.name, "replica": replica.name}
                news = {"state": state, "reason": reason, **names}
                self._topics.publish("engine", news)
        self._pump(flow)

    def _end_waiting(self, flow: Flow, now: float) -> None:
        """End those in the queue that have waited too long, or for nothing. What outlives its client is kept
        while there is no engine: the next start of the server may bring one."""
        queue = flow.queue
        if not flow.serving and queue.waiting and (hopeless := flow.hopeless()) is not None:
            for waiting in queue.items():
                if not waiting.durable:
                    self.fail(waiting, hopeless)
        for hasty in queue.expired(now):
            hasty.fail(_too_late(queue.quiet_s(now)))
        overdue = queue.overdue(now)
        quiet_s = queue.quiet_s(now, len(overdue))
        for late in overdue:
            if flow.serving or not late.durable:
                why = "" if flow.serving else f" ({flow.model.readiness()[1]})"
                text = f"No slot became free within {queue.timeout_s:g} s{why}; try again later."
                self.fail(late, HeadraceError(Code.QUEUE_TIMEOUT, text, retry_after_s=quiet_s))


def _shed(retry_after_s: float) -> HeadraceError:
    text = "The queue was full, and a request that cannot wait took this one's turn; try again."
    return HeadraceError(Code.QUEUE_FULL, text, retry_after_s=retry_after_s)


def _too_late(retry_after_s: float) -> HeadraceError:
    text = "This request cannot be answered within its target any more; try again later."
    return HeadraceError(Code.QUEUE_TIMEOUT, text, retry_after_s=retry_after_s)
