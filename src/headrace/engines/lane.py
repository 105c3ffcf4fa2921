"""One choice's way through a llama.cpp process: a slot, what must be computed before, its stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Usage
from headrace.engines import llama_body
from headrace.engines.ask import Asking, tokens_left
from headrace.engines.chunks import ChatFold
from headrace.engines.echo import Echo
from headrace.engines.engine import Run, Work
from headrace.engines.fan import FanRun, FanStream, Gathering
from headrace.engines.filtered import FilteredFold
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_fold import LlamaFold
from headrace.engines.llama_tools import CallReader
from headrace.engines.prefill import Prefill
from headrace.engines.replay import Replay
from headrace.engines.retrace import Retrace
from headrace.engines.slot_table import ANY, Content, Ticket
from headrace.engines.stream import Fold
from headrace.engines.token_gap import TokenGaps

Prompt = str | llama_body.TurnPrompt


class LaneFacts(msgspec.Struct, frozen=True):
    """What all lanes of one engine know: its vocabulary's gaps, its default length, its chat dialect,
    a slot's context, and after how many tokens of a prompt it looks whether anybody still wants it
    (``step``; 0: the engine looks by itself)."""

    gaps: TokenGaps
    default_tokens: int
    asking: Asking
    context: int
    step: int


class Tokens(msgspec.Struct, gc=False):
    """Answer of ``/tokenize``."""

    tokens: tuple[int, ...]


class Lane:
    """Computes choice ``index`` of a run. Each step knows only the next one; cancelling stops the one
    under way and gives the slot back. ``reads_call``: the answer is a tool call in JSON."""

    __slots__ = (
        *("_call", "_client", "_computed", "_facts", "_fold", "_ids", "_index", "_over", "_prefix"),
        *("_prefill", "_prompt", "_reader", "_retrace", "_run", "_slot", "_ticket", "_work"),
    )

    def __init__(
        self,
        client: LlamaClient,
        facts: LaneFacts,
        run: FanRun,
        work: Work,
        index: int,
        reads_call: bool = False,
    ) -> None:
        self._client = client
        self._facts = facts
        self._run = run
        self._work = work
        self._index = index
        self._prefix = work.prefixes[index] if work.prefixes else Prefix("", ())
        self._prompt: Prompt = ""
        self._ids: tuple[int, ...] = ()
        self._ticket: Ticket | None = None
        self._slot = ANY
        self._computed = 0
        self._call: Run | None = None
        self._fold: LlamaFold | None = None
        self._prefill: Prefill | None = None
        self._reader = CallReader() if reads_call else None
        self._retrace: Retrace | None = None
        self._over = False

    def start(self, prompt: Prompt) -> None:
        """Wait for a slot, then compute. For an answer that llama.cpp reads itself ``prompt`` only says
        which slot fits."""
        self._run.adopt(self)
        request = self._work.request
        self._prompt = prompt
        prefix = self._prefix = llama_body.without_echo(request, prompt, self._prefix)
        left = tokens_left(request.sampling, prefix)
        if left is not None and left <= 0 and prefix.text:
            self._over = True
            self._run.stream_done({self._index: "length"}, Usage())
            return
        if (prefix.text or prefix.calls) and (self._reader or llama_body.is_whole(request)):
            self._retrace = Retrace(prefix)
        if llama_body.needs_chat(request):
            self._ask(prompt)
        else:
            self._tokenize()

    def cancel(self) -> None:
        """Stop the step under way, free the slot; idempotent."""
        self._over = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._give_back()

    def failed(self, error: HeadraceError) -> None:
        """A step failed, and so the run."""
        if not self._over:
            self._over = True
            self._give_back()
            self._run.failed(error)

    def _tokenize(self) -> None:
        """The prompt as ids: what a slot has of it can then be told, and it can be computed in steps."""
        alone = self._retrace is not None or self._replays()
        prefix = Prefix("", ()) if alone else self._prefix
        prompt = llama_body.prompt_with(self._prompt, prefix)
        text, rest = llama_body.split(prompt)
        if not text:
            self._tokenized(rest, b'{"tokens":[]}')
            return
        body = {"content": text, "add_special": True, "parse_special": True}
        found = partial(self._tokenized, rest)
        self._call = self._client.ask("/tokenize", body, found, self.failed)

    def _tokenized(self, rest: tuple[int, ...], body: bytes) -> None:
        if not self._over:
            self._ids = msgspec.json.decode(body, type=Tokens).tokens + rest
            self._ask(self._ids)

    def _replays(self) -> bool:
        return self._work.exact and len(self._prefix.token_ids) > 1 and self._retrace is None

    def _ask(self, wanted: Content) -> None:
        early = self._may_be_early()
        ticket = self._client.slots.ask(wanted, self._on_slot, early)
        if not self._over:  # as it is if it ended while it was given its slot
            self._ticket = ticket

    def _may_be_early(self) -> bool:
        """Whether it is one request, that any slot may compute."""
        return not (self._work.exact or self._work.request.echo)

    def _on_slot(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._slot = ticket.slot
        request, work = self._work.request, self._work
        if llama_body.needs_chat(request):
            self._chat()
        elif request.echo and not (work.prefixes and work.prefixes[self._index].text):
            self._keep(self._echo())
        else:
            self._fill()

    # Steps before the stream.

    def _echo(self) -> Echo:
        request = self._work.request
        logprobs = request.sampling.logprobs
        prompt = request.prompts[self._index // request.sampling.n]
        place = (self._client, self._slot, prompt, self._index, logprobs)
        return Echo(*place, self._echoed, self.failed)

    def _echoed(self, delta: Delta) -> None:
        kept = [delta] if self._retrace is None else self._retrace.through([delta])
        self._run.deltas(kept)
        if not self._over:
            self._fill()

    def _fill(self) -> None:
        """The prompt up to its last batch, unless it is too long anyway: llama.cpp then says so. Without a
        slot of its own all is one request."""
        step = self._facts.step
        if not step or self._slot < 0 or len(self._ids) >= self._facts.context:
            self._filled()
            return
        cold = self._work.exact
        shared = 0 if cold else self._client.slots.shares(self._slot, self._ids)
        self._prefill = Prefill(
            self._client,
            self._slot,
            self._ids,
            step=step,
            shared=shared,
            cold=cold,
            on_step=self._stepped,
            done=self._filled,
            failed=self.failed,
        )
        self._keep(self._prefill)

    def _stepped(self, done: int, total: int) -> None:
        self._client.slots.holds(self._slot, self._ids[:done])
        self._progress(done, total)

    def _filled(self) -> None:
        if self._replays():
            ids, ahead = self._prefix.token_ids, self._ahead()
            done = (self._progress, self._complete, self.failed)
            self._keep(Replay(self._client, self._slot, self._ids, ids, not ahead, *done))
        else:
            self._complete()

    def _ahead(self) -> bool:
        """Whether steps of this run computed a part of the prompt."""
        return self._prefill is not None and self._prefill.cached is not None

    def _keep(self, step: Echo | Prefill | Replay) -> None:
        self._call = step
        step.start()

    # The stream.

    def _complete(self) -> None:
        work, request, prefix = self._work, self._work.request, self._prefix
        if self._replays():
            self._ids += prefix.token_ids
        begun = Prefix("", ()) if self._retrace is not None else prefix
        default_tokens = self._facts.default_tokens
        if default_tokens and work.turns:
            default_tokens = max(1, default_tokens - sum(turn.said.tokens for turn in work.turns))
        fields = llama_body.completion(request, self._index, list(self._ids), begun, default_tokens)
        if self._slot >= 0:
            fields["id_slot"] = self._slot
        fields["cache_prompt"] = not work.exact or self._ahead() or bool(begun.token_ids)
        fold = self._fold = LlamaFold(
            self._index, request.sampling.logprobs, self._facts.gaps, self._on_progress
        )
        if fields["n_predict"] == 0:  # llama.cpp says a token even then
            fold.mute()
        stream = self._stream(fold, partial(self._completed, fold))
        self._call = self._client.complete(llama_body.encode(fields), stream)

    def _chat(self) -> None:
        """Tool calls and images: llama.cpp renders and reads; every choice is a request."""
        request = self._work.request
        sampling = request.sampling
        seed = None if sampling.seed is None else sampling.seed + self._index
        one = msgspec.structs.replace(sampling, n=1, seed=seed)
        body = self._facts.asking.body(
            msgspec.structs.replace(request, sampling=one),
            True,
            {"id_slot": self._slot} if self._slot >= 0 else {},
        )
        fold = ChatFold(self._index, self._progress)
        stream = self._stream(fold, partial(self._answered, fold))
        self._call = self._client.chat(body, stream)

    def _stream(self, fold: Fold, ended: Callable[[], None]) -> FanStream:
        """The answer of the last request, through what filters it."""
        filters = [one.through for one in (self._reader, self._retrace) if one is not None]
        filtered = FilteredFold(fold, filters) if filters else fold
        if self._work.live:
            return FanStream(self._run, filtered, True, self.failed, ended, self._settle)
        gathering = Gathering(self._run)

        def gathered() -> None:
            gathering.tell()
            ended()

        return FanStream(gathering, filtered, True, self.failed, gathered, self._settle)

    def _settle(self) -> None:
        """llama.cpp begins its answer when a slot computes it, not when it has read the request."""
        if self._ticket is not None:
            self._ticket.settle()

    def _on_progress(self, done: int, total: int) -> None:
        self._computed = done
        self._progress(done, total)

    def _progress(self, done: int, total: int) -> None:
        self._run.prefill(self._index, done, total)

    # After the stream.

    def _answered(self, fold: ChatFold) -> None:
        usage = fold.usage()
        self._finish(fold, usage if self._index == 0 else Usage(0, usage.completion_tokens))

    def _completed(self, fold: LlamaFold) -> None:
        held = [token for ids, _ in fold.held for token in ids]
        if held and fold.last.stop_type == "limit":
            found = partial(self._show_held, fold, tuple(held))
            self._call = self._client.ask("/detokenize", {"tokens": held}, found, self.failed)
        else:
            self._count(fold)

    def _show_held(self, fold: LlamaFold, held: tuple[int, ...], body: bytes) -> None:
        """Text that llama.cpp held back, and then lost since the limit came first."""
        deltas = [Delta(msgspec.json.decode(body)["content"], self._index, held)]
        try:
            for one in (self._reader, self._retrace):
                deltas = one.through(deltas) if one is not None else deltas
        except HeadraceError as error:
            self.failed(error)
            return
        if deltas:
            self._run.deltas(deltas)
        self._count(fold)

    def _count(self, fold: LlamaFold) -> None:
        """The choice is complete. Its prompt is counted once, whatever number of choices it has."""
        usage = fold.usage()
        if self._prefill is not None and self._prefill.cached is not None:
            cached = self._prefill.cached
            usage = Usage(usage.prompt_tokens, usage.completion_tokens, cached)
        if self._index % self._work.request.sampling.n:
            known = 0 if self._retrace is not None else len(self._prefix.token_ids)
            usage = Usage(known, usage.completion_tokens, 0)
        self._finish(fold, usage)

    def _finish(self, fold: LlamaFold | ChatFold, usage: Usage) -> None:
        if self._over:
            return
        if self._retrace is not None:
            try:
                self._retrace.check_over()
            except HeadraceError as error:
                self.failed(error)
                return
            usage = self._retrace.usage(usage)
        reasons = fold.reasons
        if self._reader is not None and self._reader.over:
            reasons = {self._index: "tool_calls"}
        self._over = True
        self._give_back()
        self._run.stream_done(reasons, usage, fold.stop)

    def _give_back(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            fold = self._fold
            slot = self._slot if fold is None or self._slot >= 0 else fold.last.id_slot
            if fold is not None and slot >= 0:
                made = tuple(fold.made)
                content = self._ids + made if made else self._ids[: self._computed]
                self._client.slots.holds(slot, content)
            ticket.give_back()
