"""An engine that computes nothing: it says what its script says, when the script says it.

For tests and examples. It takes part in everything a real engine does (slots, cancelling, going on
from a prefix, failing) and never makes up text. A prompt in mid-stream does not change what it says: it
goes on in its script.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from headrace.domain.delta import Delta, Outcome, Prefix
from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, TokenLogprob, ToolCallDelta, Usage
from headrace.domain.request import Request
from headrace.engines.base import StreamingEngine, refuse_extra, unsupported
from headrace.engines.engine import EngineInfo, Health, Run, Sink, Work
from headrace.engines.script import Script, ScriptedToken, prompt_texts
from headrace.engines.stopping import StopStrings


class ScriptedOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``load_ms``: how long loading takes; ``load_error``: why it fails, if it does."""

    name: str = "scripted"
    scripts: tuple[Script, ...] = (Script(),)
    slots: int = 16
    context: int = 4096
    load_ms: float = 0.0
    load_error: str = ""


class ScriptedEngine(StreamingEngine):
    """An :class:`~headrace.engines.engine.Engine` with a script for a model."""

    def __init__(self, options: ScriptedOptions) -> None:
        self._options = options
        self._health: tuple[Health, str] = ("starting", "the script was not loaded yet")
        self._loaded_at = 0.0
        self._used = [0] * len(options.scripts)
        self._runs: set[ScriptedRun] = set()
        self.started = 0

    @property
    def running(self) -> int:
        """Runs under way now: slots taken."""
        return len(self._runs)

    async def load(self) -> None:
        await asyncio.sleep(self._options.load_ms / 1000)
        if self._options.load_error:
            self._health = ("failed", self._options.load_error)
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, self._options.load_error)
        self._health = ("ready", "the script is loaded")
        self._loaded_at = time.time()

    def info(self) -> EngineInfo:
        if not self._loaded_at:
            return super().info()
        options = self._options
        return EngineInfo(
            name=options.name,
            version="1",
            type="scripted",
            parameters=0,
            max_tokens=options.context,
            context=options.context,
            slots=options.slots,
            created_at=self._loaded_at,
            continues=True,
        )

    def health(self) -> tuple[Health, str]:
        return self._health

    def check(self, request: Request) -> None:
        if request.echo:
            raise unsupported("echo", "A scripted engine does not echo prompts.")
        refuse_extra(request, frozenset())

    def check_prompt(self, request: Request) -> None:
        """Any will do."""

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        self.started += 1
        loop = asyncio.get_running_loop()
        run = ScriptedRun(self._script(work.request), work, sink, self._runs)
        if self._health[0] == "ready":
            loop.call_soon(run.start)
        else:
            state, reason = self._health
            error = HeadraceError(Code.ENGINE_UNAVAILABLE, f"The engine is {state}: {reason}.")
            loop.call_soon(run.fail, error)
        return run

    def crash(self, reason: str = "it was told to crash", state: Health = "failed") -> None:
        """Die as a process dies: all runs fail, nothing runs until the next :meth:`load`. ``state``: its
        health until then."""
        self._health = (state, reason)
        self._fail_all(HeadraceError(Code.ENGINE_FAILED, f"The scripted engine died: {reason}."))

    async def count_prompt(self, request: Request) -> int:
        """The words of the prompt."""
        return Script().counted(request)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The bytes of an input's SHA-256, from 0 to 1; equal inputs have equal ones. A word is a token."""
        if self._health[0] != "ready":
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"The engine is {self._health[0]}.")
        vectors = [
            array("f", [byte / 255 for byte in sha256(repr(one).encode()).digest()])
            for one in request.inputs
        ]
        words = [one.split() if isinstance(one, str) else one for one in request.inputs]
        return Embeddings(vectors, sum(map(len, words)))

    async def close(self) -> None:
        self._health = ("closed", "the engine was closed")
        self._fail_all(HeadraceError(Code.ENGINE_UNAVAILABLE, "The engine was closed."))

    def _fail_all(self, error: HeadraceError) -> None:
        for run in list(self._runs):
            run.fail(error)

    def _script(self, request: Request) -> Script:
        """The first script that fits and is not used up; an empty one without any."""
        prompt = "\n".join(prompt_texts(request))
        for at, script in enumerate(self._options.scripts):
            if script.when in prompt and (not script.times or self._used[at] < script.times):
                self._used[at] += 1
                return script
        return Script()


class _Voice:
    """One choice of a run: where it stands in its tokens."""

    __slots__ = (
        "_at",
        "_index",
        "_logprobs",
        "_stops",
        "_tokens",
        "left",
        "reason",
        "said",
        "stop",
    )

    def __init__(
        self, script: Script, request: Request, index: int, prefix: Prefix, closed: tuple[int, ...]
    ) -> None:
        """``closed``: ids of the tokens in turns before this one."""
        sampling = request.sampling
        self._index = index
        self._tokens = script.said_by(index)
        known = closed + prefix.token_ids
        self._at = len(known)
        self._logprobs = sampling.logprobs
        self._stops = StopStrings(sampling.stop)
        self.left = len(self._tokens) if sampling.max_tokens is None else sampling.max_tokens
        self.left -= len(prefix.token_ids)
        self.said = 0
        self.reason: FinishReason | None = None
        self.stop: str | None = None
        if tuple(token.id for token in self._tokens[: self._at]) != known:
            raise HeadraceError(Code.NOT_CONTINUABLE, "The script has no such beginning.")

    def pause_ms(self, default: float) -> float:
        """The pause before the next token."""
        after = self._tokens[self._at].after_ms if self._at < len(self._tokens) else 0.0
        return default if after is None else after

    def speak(self, reason: FinishReason) -> Delta | None:
        """The next token, or the end (``reason`` is set then)."""
        if self._at >= len(self._tokens) or self.left <= 0:
            self.reason = reason if self._at >= len(self._tokens) else "length"
            rest = self._stops.rest()
            return Delta(rest, self._index) if rest else None
        token = self._tokens[self._at]
        self._at += 1
        self.left -= 1
        self.said += 1
        text = token.text if token.reasoning else self._stops.feed(token.text)
        if self._stops.found is not None:
            self.reason, self.stop = "stop", self._stops.found
        return self._delta(token, text)

    def _delta(self, token: ScriptedToken, text: str) -> Delta:
        calls = tuple(ToolCallDelta(c.index, c.id, c.name, c.arguments) for c in token.tool_calls)
        logprobs = None
        if self._logprobs is not None:
            logprobs = (_probability(token, self._logprobs),)
        return Delta(text, self._index, (token.id,), token.reasoning, logprobs, calls or None)


def _probability(token: ScriptedToken, alternatives: int) -> TokenLogprob:
    top = list(token.top.items())[:alternatives]
    return TokenLogprob(
        token.text,
        token.logprob,
        tuple(token.text.encode()),
        tuple((text, logprob, tuple(text.encode())) for text, logprob in top),
    )


class ScriptedRun:
    """A run of a script. All its choices speak in step."""

    __slots__ = ("_prefills", "_runs", "_script", "_sink", "_timer", "_voices", "_work")

    def __init__(self, script: Script, work: Work, sink: Sink, runs: set[ScriptedRun]) -> None:
        self._script = script
        self._work = work
        self._sink: Sink | None = sink
        self._runs = runs
        self._voices: list[_Voice] = []
        self._prefills = list(script.prefill)
        self._timer: asyncio.TimerHandle | None = None
        runs.add(self)

    def cancel(self) -> None:
        self._sink = None
        self._runs.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def start(self) -> None:
        """Begin; called by the loop, after ``stream_infer`` returned."""
        if self._script.refuse is not None:
            self.fail(HeadraceError(self._script.refuse, "The script refuses this run."))
            return
        request, prefixes = self._work.request, self._work.prefixes
        closed = tuple(id for turn in self._work.turns for id in turn.said.token_ids)
        try:
            for index in range(request.choices):
                prefix = prefixes[index] if index < len(prefixes) else Prefix("", ())
                self._voices.append(_Voice(self._script, request, index, prefix, closed))
        except HeadraceError as error:
            self.fail(error)
            return
        self._prefill()

    def fail(self, error: HeadraceError) -> None:
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.failed(error)

    def _prefill(self) -> None:
        sink = self._sink
        if sink is None:
            return
        if self._prefills:
            sink.prefill(self._prefills.pop(0), max(self._script.prefill))
            self._after(self._script.prefill_ms, self._prefill)
        else:
            self._wait_and_speak([])

    def _after(self, pause_ms: float, step: object) -> None:
        assert callable(step)
        self._timer = asyncio.get_running_loop().call_later(pause_ms / 1000, step)

    def _wait_and_speak(self, ready: list[Delta]) -> None:
        """Say everything that needs no pause as one batch, then pause."""
        while True:
            speaking = [voice for voice in self._voices if voice.reason is None]
            if not speaking:
                self._finish(ready)
                return
            if self._script.fail_after is not None and self._said() >= self._script.fail_after:
                self._show(ready)
                self.fail(HeadraceError(self._script.fail_code, "The script fails here."))
                return
            if self._script.hang_after is not None and self._said() >= self._script.hang_after:
                self._show(ready)
                return
            pause_ms = max(voice.pause_ms(self._script.delay_ms) for voice in speaking)
            if pause_ms > 0:
                self._show(ready)
                if self._sink is not None:
                    self._after(pause_ms, self._speak_and_go_on)
                return
            ready += self._speak(speaking)

    def _speak_and_go_on(self) -> None:
        self._wait_and_speak(self._speak([v for v in self._voices if v.reason is None]))

    def _speak(self, voices: Sequence[_Voice]) -> list[Delta]:
        said = [voice.speak(self._script.reason) for voice in voices]
        return [delta for delta in said if delta is not None]

    def _said(self) -> int:
        return max(voice.said for voice in self._voices)

    def _show(self, deltas: list[Delta]) -> None:
        if deltas and self._sink is not None:
            self._sink.deltas(deltas)

    def _finish(self, ready: list[Delta]) -> None:
        self._show(ready)
        sink = self._sink
        if sink is None:
            return
        self.cancel()
        turns = self._work.turns
        known = (*(turn.said for turn in turns), *self._work.prefixes)
        added = sum(len(turn.message.text.split()) for turn in turns)
        usage = Usage(
            self._script.counted(self._work.request)
            + added
            + sum(len(prefix.token_ids) for prefix in known),
            sum(voice.said for voice in self._voices),
            self._script.cached_tokens,
        )
        reasons = tuple(voice.reason or "stop" for voice in self._voices)
        sink.finished(Outcome(reasons, usage, self._voices[0].stop))
