"""The ``Engine`` protocol: what the server asks of anything that computes tokens.

A *run* is one request on one replica. Results arrive by calls on a :class:`Sink`, not by an async
iterator: at 10,000 streams a task and a wake-up per token would cost more than the token. All calls
happen on the server's event loop thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from headrace.domain.delta import Delta, Outcome, Prefix, Turn
from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import HeadraceError
from headrace.domain.request import Request
from headrace.domain.tokens import Tokens


class Sink(Protocol):
    """Receives one run's output. After ``finished`` or ``failed`` (exactly one of them, exactly
    once) or after ``Run.cancel`` returned, the engine calls nothing more."""

    def deltas(self, deltas: list[Delta]) -> None:
        """New output, in order, as much as was ready at once."""

    def prefill(self, done: int, total: int) -> None:
        """Prompt tokens computed so far."""

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        """The run ended well; its slot is free. ``deltas``: what came together with the end."""

    def failed(self, error: HeadraceError) -> None:
        """The run ended badly; its slot is free. ``error.meaning.retryable`` says whether another
        replica may go on from what was delivered."""


class Run(Protocol):
    """A run under way."""

    def cancel(self) -> None:
        """Stop computing and free the engine's slot. Idempotent; returns at once."""


class Work(msgspec.Struct, frozen=True, gc=False):
    """What a run has to do: a request, and per choice what it already has (empty: from the
    beginning).

    ``exact`` replays the prefix token by token, so that floating-point rounding equals the
    uninterrupted run's. ``live`` False means nobody needs the tokens one by one: an engine may then
    answer with one delta per choice. ``turns``: what prompts in mid-stream closed before; ``prefixes`` is
    then the one of the turn that is open, and ``max_tokens`` of the request is what is left for it.
    ``trace``: what an upstream is told of the trace that the run is in, as header lines.
    """

    request: Request
    prefixes: tuple[Prefix, ...] = ()
    exact: bool = False
    live: bool = True
    turns: tuple[Turn, ...] = ()
    trace: bytes = b""


class EngineInfo(msgspec.Struct, frozen=True, gc=False):
    """``parameters``: number of weights, 0 if unknown. ``max_tokens`` and ``context``: tokens.
    ``slots``: 0 if nobody knows. ``created_at``: float Unix seconds. ``continues``: can go on from a :class:`Prefix`.
    ``early``: runs beside those in its slots that it wants already, so that no slot idles between two of them."""

    name: str
    version: str
    type: str
    parameters: int
    max_tokens: int
    context: int
    slots: int
    created_at: float
    continues: bool
    early: int = 0


Health = Literal["starting", "ready", "unreachable", "failed", "closed"]
"""``unreachable``: it was ready, and is asked again until it answers. ``failed``: not before somebody does
something about it."""

Answer = tuple[list[Delta], Outcome]
"""All output of a run that ended well."""


class Engine(Protocol):
    """One replica of a model."""

    async def load(self) -> None:
        """Make it ready; returns when :meth:`health` is ``ready``.

        Raises :class:`HeadraceError` ``ENGINE_UNAVAILABLE`` with the reason when it is impossible.
        """

    def info(self) -> EngineInfo:
        """Facts of the loaded model. Raises ``MODEL_LOADING`` before :meth:`load` returned."""

    def health(self) -> tuple[Health, str]:
        """State and the reason for it, in words."""

    def check(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` (naming ``param``) for an option this engine lacks."""

    def check_prompt(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` (naming ``param``) for a request to which no message can be added while it is
        answered."""

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        """Start a run; returns at once. Errors, also of the start, arrive at ``sink.failed``."""

    async def infer(self, work: Work) -> Answer:
        """Run to the end; return all output. Raises what ``sink.failed`` would have been given."""

    async def batch_infer(self, works: list[Work]) -> list[Answer | HeadraceError]:
        """Run several; order is kept, each item has its own result or error."""

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        """A text by this model's tokenizer, ``special``: with the tokens that every prompt begins with,
        ``pieces``: with each token's text. Raises ``UNSUPPORTED`` where it has none."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens. Raises ``UNSUPPORTED``, and ``INVALID_REQUEST`` for ids that are none."""

    async def count_prompt(self, request: Request) -> int:
        """Tokens of a chat's prompt as this model's template lays it out. Raises ``UNSUPPORTED`` where that
        is not known."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors of texts or token ids. Raises ``UNSUPPORTED`` where it computes none, ``CONTEXT_LENGTH`` and
        ``INVALID_REQUEST`` for inputs that it does not take."""

    async def cache_usage(self) -> float | None:
        """Share of the key-value cache that runs under way occupy, 0 to 1; None: this engine never says.
        Asks the engine: for a look every few seconds, not for every request. Raises what says why it
        does not answer now."""

    async def close(self) -> None:
        """Free everything; idempotent. Runs under way fail with ``ENGINE_UNAVAILABLE``."""
