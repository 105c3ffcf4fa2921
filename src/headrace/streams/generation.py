"""One generation: the stage between an engine's raw deltas and the log.

Order of truth (DESIGN §9): delta → hooks → ``seq`` → store append → visible. This module does the
first two arrows and hands the rest to the log. Whatever happens, the log ends in exactly one terminal
event: every path goes through :meth:`Generation._end`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, Literal

import msgspec

from headrace.domain.delta import Delta, Outcome, Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import (
    Error,
    Event,
    Finish,
    FinishReason,
    Phase,
    Progress,
    Prompt,
    Token,
    Usage,
)
from headrace.domain.request import Caller, Message, Request
from headrace.streams.addition import Addition, over
from headrace.streams.client_subscription import ClientSubscription
from headrace.streams.generation_port import Chain, Meter, Owner
from headrace.streams.hook import HookContext
from headrace.streams.log import Log
from headrace.streams.numbering import SURELY_SHORT, numbered
from headrace.streams.reader import Reader, Subscription
from headrace.streams.said import Said
from headrace.streams.store import LogHeader


class Generation:
    """A request being answered. Is the ``Sink`` of its runs and what protocols see as a generation.

    ``seq`` is the last one assigned. ``flow``, ``place``, ``ticket``, ``trace``, ``watched``, ``reservation`` are
    its owner's, and what it knows of broken runs: ``fruitless`` of them since the newest token, which came
    ``broke_after``; since when it waits then. ``join_key``: what it is known by to those who ask the same again.
    ``charged_seq``: up to which event its tenant was charged; ``told``: the position in the queue that was told
    last, and when; ``foreseen``: the first wait in seconds that was told since it waits, and when.
    ``said``: by its engines, where that is kept to go on from; ``closing``: its end is known, and waits for hooks.
    Times are ``time.monotonic`` seconds, but for ``last_token_at``: the Unix time of the newest token.
    """

    # What most generations never set is found here: to make one has to be cheap.
    closing = False
    prompts: asyncio.Lock | None = None
    fruitless = 0
    broke_after = waits_since = 0.0
    cancel_run: Callable[[], None] | None = None
    place: Any = None
    ticket: Any = None
    charged_seq = 0
    told = (0, 0.0)
    foreseen: tuple[float, float] | None = None
    trace: Any = None
    reservation: Any = None
    watched: Any = None
    prefilled = -1
    started_at = 0.0
    last_token_at = 0.0
    left_at: float | None = None
    join_key: str | None = None
    _clients = 0

    def __init__(
        self,
        log: Log,
        owner: Owner,
        *,
        chain: Chain | None = None,
        context: HookContext | None = None,
        meter: Meter,
        flow: Any = None,
        keep_raw: bool = False,
        now: float | None = None,
    ) -> None:
        """``now``: ``time.monotonic`` seconds."""
        header = log.header
        caller = header.caller
        grace_s = caller.leaving.grace_s
        self.log = log
        self.header: LogHeader = header
        self.request: Request = header.request
        self.caller: Caller = caller
        self.id: str = header.id
        self.durable = grace_s is None or grace_s > 0
        self.seq = log.visible_seq
        self.meter = meter
        self.flow = flow
        self.said = Said() if keep_raw else None
        self.admitted_at = time.monotonic() if now is None else now
        self.ended = False
        self._owner = owner
        self._backlog: list[Callable[[], Awaitable[None] | None]] | None = None
        self._chain = chain if context is not None else None
        self._context: Any = context  # there if there is a chain
        log.on_failure = self.fail  # a log that cannot be stored: nobody would see the rest

    # What protocols see.

    @property
    def created(self) -> float:
        return self.header.created

    @property
    def model(self) -> str:
        return self.header.model

    @property
    def wire(self) -> str:
        return self.header.wire

    @property
    def wire_options(self) -> dict[str, Any]:
        return self.header.wire_options

    @property
    def last_seq(self) -> int:
        return self.log.visible_seq

    @property
    def state(self) -> Literal["queued", "running", "finished", "failed"]:
        if self.log.end is not None:
            return "finished" if self.log.end == "finish" else "failed"
        place = self.place
        if place is None:
            return "queued"
        # In the engine's own line until it says something.
        waits = place.early and self.prefilled < 0 and not self.last_token_at
        return "queued" if waits else "running"

    def attach(self, reader: Reader, *, client: bool) -> Subscription:
        subscription = self.log.attach(reader)
        if not client:
            return subscription
        self._clients += 1
        self.left_at = None
        return ClientSubscription(subscription, self)

    def client_closed(self) -> None:
        self._clients -= 1
        if not self._clients and not self.ended:
            self._owner.left(self)

    @property
    def clients(self) -> int:
        return self._clients

    # The sink of a run.

    def deltas(self, deltas: list[Delta]) -> None:
        if self.ended:
            return
        if self.said is not None:
            self.said.remember(deltas)
        chain = self._chain
        if chain is None:
            self._emit(deltas, deltas)
        elif self._backlog is not None:
            self._backlog.append(lambda: self._hooked(deltas))
        else:
            try:
                out = chain.on_token(self._context, deltas)
            except HeadraceError as error:
                self.fail(error)
                return
            if out is deltas or type(out) is list or type(out) is tuple or not isawaitable(out):
                self._emit(out, deltas)
            else:
                self._begin(self._emit_later(out, deltas))

    def prefill(self, done: int, total: int) -> None:
        if self.ended or done == self.prefilled:
            return
        if self.prefilled < 0 and self.ticket is not None:
            self._owner.prefilling(self)
        self.prefilled = done
        self.progress("prefill", done=done, total=total)

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self.cancel_run = None
        if self.ended:
            return
        usage = outcome.usage
        if self.said is not None and (prior := self.said.prior):
            prompt_tokens = max(0, usage.prompt_tokens - prior)
            usage = Usage(
                prompt_tokens,
                usage.completion_tokens + prior,
                min(usage.cached_tokens, prompt_tokens),
            )
        cap = self.request.cap
        if (
            cap is not None
            and "length" in outcome.reasons
            and usage.completion_tokens >= cap.tokens
        ):
            usage = msgspec.structs.replace(usage, limited_by=cap.by)
        end = Finish(0, 0.0, outcome.reasons, usage, outcome.stop)
        if not deltas:
            self._close(end)
        elif self._chain is None:
            self._end(end, deltas)
        elif self._chain.is_async or self._backlog is not None:
            self.deltas(list(deltas))
            self._close(end)
        else:
            # The last deltas and the end as one append: most answers without a stream are only that.
            try:
                out = self._chain.on_token(self._context, deltas)
            except HeadraceError as error:
                self.fail(error)
                return
            if type(out) is list or type(out) is tuple or not isawaitable(out):
                if (step := self._last_words(end, out, deltas)) is not None:
                    self._begin(step)
            else:
                self._begin(self._emit_later(out, list(deltas)))
                self._close(end)

    def failed(self, error: HeadraceError) -> None:
        self.cancel_run = None
        if not self.ended and not self._owner.run_failed(self, error):
            self.fail(error)

    # What the owner does with it.

    def progress(
        self,
        phase: Phase,
        *,
        position: int | None = None,
        eta_s: float | None = None,
        done: int | None = None,
        total: int | None = None,
    ) -> None:
        """Append a ``progress`` event; nothing after the end."""
        if self.ended:
            return
        self.seq += 1
        event = Progress(self.seq, time.time(), phase, position, eta_s, done, total)
        self.log.append([event])

    def fail(self, error: HeadraceError) -> None:
        """End with an ``error`` event; stops the run. Idempotent."""
        if self.ended:
            return
        self.stop_run()
        self._close(_error_end(error))

    def end_without_hooks(self, error: HeadraceError) -> None:
        """End a generation whose hooks could not be rebuilt after a restart."""
        self._chain = None
        self.fail(error)

    def finish(self, reason: FinishReason) -> None:
        """End well without a run (nothing was left to compute)."""
        prior = 0 if self.said is None else self.said.prior
        self.finished(Outcome((reason,) * self.request.choices, Usage(prior, 0)))

    def stop_run(self) -> None:
        """Stop computing now; the engine's slot is free when this returns."""
        cancel, self.cancel_run = self.cancel_run, None
        if cancel is not None:
            cancel()

    def go_on(self) -> tuple[Prefix, ...]:
        """A new run begins: what it goes on from. What was told but never delivered is forgotten,
        here and, by a marker, in the store."""
        self.prefilled = -1
        said = self.said
        assert said is not None
        markers = said.forget_held()
        if markers and self.durable:
            self.log.append((), markers)
        prefixes = said.prefixes(self.request.choices)
        said.prior = said.closed_tokens + sum(prefix.tokens for prefix in prefixes)
        return prefixes

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What prompts in mid-stream closed."""
        return () if self.said is None else self.said.turns

    def rewrite(
        self, messages: Sequence[Message], *, running: bool
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        """What the hooks make of messages. ``running``: they come in mid-stream."""
        if self._chain is None:
            return messages
        self._context.running = running
        return self._chain.on_prompt(self._context, messages)

    def begin_with(self, messages: Sequence[Message]) -> None:
        """Before anything of it is in the log: these are the request's messages; those that its client did not
        send are its first events."""
        sent = self.request.messages
        replace = msgspec.structs.replace
        self.request = self._context.request = replace(self.request, messages=tuple(messages))
        self.header = replace(self.header, request=self.request)
        self.log.amend(self.header)
        new = [message for message in messages if message not in sent]
        if new:
            prompts = _prompts(new, self.seq, time.time())
            self.seq += len(prompts)
            self.log.append(prompts)

    def add(
        self, messages: Sequence[Message], said: Prefix | None = None
    ) -> asyncio.Future[Sequence[Prompt]]:
        """Close the turn and put messages behind it: the run stops now, what hooks hold back comes out, then
        the ``prompt`` events, then the owner runs on. ``said``: what there was, where it was not kept here.
        Raises ``CONFLICT`` after the end; what goes wrong later is the future's."""
        if self.ended or self.closing:
            raise over(self.id)
        self.stop_run()
        kept = self.said
        if kept is None:
            kept = self.said = Said()
        kept.close_turn(messages, said)
        addition = Addition(self, messages)
        if self._chain is None:
            addition.put(())
        elif self._backlog is not None:
            self._backlog.append(addition.ask_hooks)
        elif (step := addition.ask_hooks()) is not None:
            self._begin(step)
        return addition.told

    def end_turn(self) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """What the hooks hold back. Raises what they fail with."""
        assert self._chain is not None
        return self._chain.on_turn_end(self._context)

    def put(self, held: Sequence[Delta], messages: Sequence[Message]) -> Sequence[Prompt]:
        """Append what hooks held back and the messages behind it; the owner then runs on. Raises why that
        cannot be stored."""
        now = time.time()
        events = numbered(held, self.seq, now)
        prompts = _prompts(messages, self.seq + len(events), now)
        self.seq += len(events) + len(prompts)
        marks = [Delta("", prompt=message) for message in messages] if self.durable else ()
        self.log.append([*events, *prompts], marks)
        if events:
            self._count(len(events), now)
        if self.log.failure is not None:
            raise self.log.failure
        if not self.ended:
            self._owner.prompted(self)
        return prompts

    def rebuild(self, raw: Sequence[Delta]) -> None:
        """After a restart: remember the stored deltas and replay the hooks, their output suppressed
        (it is in the log already), so that what they held back is held back again."""
        said = self.said
        assert said is not None
        for delta in raw:
            if delta.prompt is not None:
                said.close_turn((delta.prompt,))
            else:
                said.remember((delta,))
        chain, context = self._chain, self._context
        if chain is None or context is None:
            return
        context.replaying = True
        for delta in raw:
            out = (
                chain.on_token(context, (delta,))
                if delta.prompt is None
                else chain.on_turn_end(context)
            )
            if isawaitable(out):
                raise HeadraceError(
                    Code.NOT_CONTINUABLE, "An async hook cannot be replayed at the start."
                )
        context.replaying = False

    # From deltas to events.

    def _hooked(self, deltas: list[Delta]) -> Awaitable[None] | None:
        assert self._chain is not None
        try:
            out = self._chain.on_token(self._context, deltas)
        except HeadraceError as error:
            self.fail(error)
            return None
        if type(out) is not list and type(out) is not tuple and isawaitable(out):
            return self._emit_later(out, deltas)
        self._emit(out, deltas)
        return None

    async def _emit_later(self, out: Awaitable[Sequence[Delta]], raw: list[Delta]) -> None:
        try:
            self._emit(await out, raw)
        except HeadraceError as error:
            self.fail(error)

    def _emit(self, deltas: Sequence[Delta], raw: Sequence[Delta]) -> None:
        if self.ended:
            return
        now = time.time()
        # What nearly always comes is one short text: then as numbered and _count do it, without their calls.
        events: Sequence[Event]
        if len(deltas) == 1 and (text := (delta := deltas[0]).text) and len(text) <= SURELY_SHORT:
            self.seq = seq = self.seq + 1
            index, reasoning = delta.index, delta.reasoning
            events = (Token(seq, now, text, index, reasoning, delta.logprobs, delta.tool_calls),)
        else:
            events = numbered(deltas, self.seq, now)
            self.seq += len(events)
        if self.durable:
            self.log.append(events, raw)
        elif events:
            self.log.append(events)
        if events:
            before = self.last_token_at
            if before:
                self.last_token_at = now
                self.meter.tokens(len(events), now - before)
            else:
                self._count(len(events), now)

    def _count(self, tokens: int, now: float) -> None:
        before, self.last_token_at = self.last_token_at, now
        if before:
            self.meter.tokens(tokens, now - before)
        else:
            self.meter.first_token(time.monotonic() - self.admitted_at)
            self._owner.first_token(self)

    # Hooks that await: their results must come out in the order of the deltas.

    def _begin(self, step: Awaitable[None]) -> None:
        self._backlog = []
        self._owner.spawn(self._drain(step))

    async def _drain(self, step: Awaitable[None]) -> None:
        await step
        while self._backlog:
            after = self._backlog.pop(0)()
            if after is not None:
                await after
        self._backlog = None

    # The end.

    def _close(self, end: Finish | Error) -> None:
        if self._chain is None:
            self._end(end, ())
        elif self._backlog is not None:
            self.closing = True
            self._backlog.append(lambda: self._last_words(end))
        elif (step := self._last_words(end)) is not None:
            self._begin(step)

    def _last_words(
        self, end: Finish | Error, before: Sequence[Delta] = (), raw: Sequence[Delta] = ()
    ) -> Awaitable[None] | None:
        """Ask the hooks for what they hold back; ``before`` is what they let through just now of ``raw``."""
        assert self._chain is not None
        if self.ended:
            return None
        try:
            out = self._chain.on_finish(self._context, end)
        except HeadraceError as error:
            self._end(_error_end(error), before)
            return None
        if type(out) is not list and type(out) is not tuple and isawaitable(out):
            if before or raw:
                self._emit(before, raw)
            self.closing = True
            return self._end_later(end, out)
        self._end(end, [*before, *out] if before and out else before or out)
        return None

    async def _end_later(self, end: Finish | Error, out: Awaitable[Sequence[Delta]]) -> None:
        try:
            held = await out
        except HeadraceError as error:
            self._end(_error_end(error), ())
        else:
            self._end(end, held)

    def _end(self, end: Finish | Error, held: Sequence[Delta]) -> None:
        if self.ended:
            return
        now = time.time()
        events = numbered(held, self.seq, now) if held else []
        count = len(events)
        self.seq = seq = self.seq + count + 1
        self.ended = True
        if self.cancel_run is not None:
            self.stop_run()  # it began while an async hook held this back
        log = self.log
        log.on_failure = None  # and no cycle is left
        final: Finish | Error
        if type(end) is Finish:  # an isinstance of these structs costs three times as much
            final = Finish(seq, now, end.reasons, end.usage, end.stop)
        else:
            assert type(end) is Error
            final = Error(seq, now, end.code, end.message, end.retryable, end.retry_after_s)
        events.append(final)
        if self.reservation is not None:
            self._owner.ending(self, final)
        log.append(events)
        if count:
            self._count(count, now)
        self._owner.ended(self, final)


def _prompts(messages: Sequence[Message], seq: int, now: float) -> list[Prompt]:
    """Messages as the events after ``seq``."""
    return [
        Prompt(at, now, message.role, message.text) for at, message in enumerate(messages, seq + 1)
    ]


def _error_end(error: HeadraceError) -> Error:
    retryable = error.meaning.retryable
    return Error(0, 0.0, error.code.value, error.message, retryable, error.retry_after_s)
