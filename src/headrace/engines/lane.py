"""One choice's way through a llama.cpp process: a slot, what must be computed before, its stream."""

from __future__ import annotations

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
from headrace.engines.fan import FanRun, FanStream
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_fold import LlamaFold
from headrace.engines.replay import Replay
from headrace.engines.slot_table import Ticket
from headrace.engines.token_gap import TokenGaps

Prompt = str | tuple[int, ...]


class LaneFacts(msgspec.Struct, frozen=True):
    """What all lanes of one engine know: its vocabulary's gaps, its default length, its chat dialect."""

    gaps: TokenGaps
    default_tokens: int
    asking: Asking


class Lane:
    """Computes choice ``index`` of a run. Each step knows only the next one; cancelling stops the one
    under way and gives the slot back."""

    __slots__ = (
        *("_call", "_client", "_facts", "_index", "_over", "_prefix", "_prompt", "_run", "_slot"),
        *("_ticket", "_work"),
    )

    def __init__(
        self, client: LlamaClient, facts: LaneFacts, run: FanRun, work: Work, index: int
    ) -> None:
        self._client = client
        self._facts = facts
        self._run = run
        self._work = work
        self._index = index
        self._prefix = work.prefixes[index] if work.prefixes else Prefix("", ())
        self._prompt: Prompt = ""
        self._ticket: Ticket | None = None
        self._slot = -1
        self._call: Run | None = None
        self._over = False

    def start(self, prompt: Prompt) -> None:
        """Wait for a slot, then compute. For an answer that llama.cpp reads itself ``prompt`` only says
        which slot fits."""
        self._run.adopt(self)
        self._prompt = prompt
        self._prefix = llama_body.without_echo(self._work.request, prompt, self._prefix)
        left = tokens_left(self._work.request.sampling, self._prefix)
        if left is not None and left <= 0 and self._prefix.text:
            self._over = True
            self._run.stream_done({self._index: "length"}, Usage())
            return
        affinity = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        self._ticket = ticket = self._client.slots.ask(affinity, self._on_slot)
        if self._over:  # it ended while it was given its slot
            ticket.give_back()

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

    def _on_slot(self, slot: int) -> None:
        self._slot = slot
        request, work = self._work.request, self._work
        if llama_body.needs_chat(request):
            self._chat()
        elif request.echo and not (work.prefixes and work.prefixes[self._index].text):
            self._keep(self._echo())
        elif work.exact and len(self._prefix.token_ids) > 1:
            self._keep(self._replay())
        else:
            self._complete()

    # Steps before the stream.

    def _echo(self) -> Echo:
        logprobs = self._work.request.sampling.logprobs
        place = (self._client, self._slot, self._prompt, self._index, logprobs)
        return Echo(*place, self._echoed, self.failed)

    def _echoed(self, delta: Delta) -> None:
        self._run.deltas([delta])
        if not self._over:
            self._complete()

    def _replay(self) -> Replay:
        ids = self._prefix.token_ids
        progress = self._progress
        return Replay(
            self._client, self._slot, self._prompt, ids, progress, self._complete, self.failed
        )

    def _keep(self, step: Echo | Replay) -> None:
        self._call = step
        step.start()

    # The stream.

    def _complete(self) -> None:
        work, request = self._work, self._work.request
        prompt = llama_body.prompt_with(self._prompt, self._prefix)
        fields = llama_body.completion(
            request, self._index, prompt, self._prefix, self._facts.default_tokens, work.live
        )
        fields["id_slot"] = self._slot
        fields["cache_prompt"] = not work.exact or bool(self._prefix.token_ids)
        fold = LlamaFold(
            self._index, request.sampling.logprobs, self._facts.gaps, work.live, self._progress
        )
        if fields["n_predict"] == 0:  # llama.cpp says a token even then
            fold.mute()
        ended = partial(self._completed, fold)
        stream = FanStream(self._run, fold, work.live, self.failed, ended)
        self._call = self._client.complete(llama_body.encode(fields), stream)

    def _chat(self) -> None:
        """Tool calls and images: llama.cpp renders and reads; every choice is a request."""
        work, request = self._work, self._work.request
        sampling = request.sampling
        seed = None if sampling.seed is None else sampling.seed + self._index
        one = msgspec.structs.replace(sampling, n=1, seed=seed)
        body = self._facts.asking.body(
            msgspec.structs.replace(request, sampling=one),
            work.live,
            {"id_slot": self._slot},
        )
        fold = ChatFold(self._index)
        stream = FanStream(self._run, fold, work.live, self.failed, partial(self._answered, fold))
        self._call = self._client.chat(body, stream)

    def _progress(self, done: int, total: int) -> None:
        self._run.prefill(self._index, done, total)

    # After the stream.

    def _answered(self, fold: ChatFold) -> None:
        usage = fold.usage()
        self._finish(fold, usage if self._index == 0 else Usage(0, usage.completion_tokens))

    def _completed(self, fold: LlamaFold) -> None:
        held = [token for ids, _ in fold.held for token in ids]
        if held and fold.last.stop_type == "limit" and self._work.live:
            found = partial(self._show_held, fold, tuple(held))
            self._call = self._client.ask("/detokenize", {"tokens": held}, found, self.failed)
        else:
            self._count(fold)

    def _show_held(self, fold: LlamaFold, held: tuple[int, ...], body: bytes) -> None:
        """Text that llama.cpp held back, and then lost since the limit came first."""
        self._run.deltas([Delta(msgspec.json.decode(body)["content"], self._index, held)])
        self._count(fold)

    def _count(self, fold: LlamaFold) -> None:
        """The choice is complete. Its prompt is counted once, whatever number of choices it has."""
        usage = fold.usage()
        if self._index % self._work.request.sampling.n:
            usage = Usage(len(self._prefix.token_ids), usage.completion_tokens, 0)
        self._finish(fold, usage)

    def _finish(self, fold: LlamaFold | ChatFold, usage: Usage) -> None:
        if not self._over:
            self._over = True
            self._give_back()
            self._run.stream_done(fold.reasons, usage)

    def _give_back(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.give_back()
