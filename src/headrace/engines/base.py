"""What every engine does the same way: answers of whole runs, collected from the streamed ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from headrace.domain.delta import Delta, Outcome
from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request
from headrace.domain.tokens import Tokens
from headrace.engines.engine import Answer, EngineInfo, Run, Sink, Work

MAX_BATCH_RUNS = 64
"""Runs of one ``batch_infer`` that are under way at once, where the engine has more slots."""


class CollectingSink:
    """Gathers a run's output into ``answer``."""

    __slots__ = ("_deltas", "answer")

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer
        self._deltas: list[Delta] = []

    def deltas(self, deltas: list[Delta]) -> None:
        self._deltas.extend(deltas)

    def prefill(self, done: int, total: int) -> None:
        """Nobody watches."""

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self._deltas.extend(deltas)
        if not self.answer.done():
            self.answer.set_result((self._deltas, outcome))

    def failed(self, error: HeadraceError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class StreamingEngine:
    """The part of the :class:`~headrace.engines.engine.Engine` protocol that ``stream_infer`` implies."""

    def info(self) -> EngineInfo:
        """As the protocol says."""
        raise HeadraceError(Code.MODEL_LOADING, "The model is still being loaded; try again soon.")

    def check_prompt(self, request: Request) -> None:
        """As the protocol says."""
        raise unsupported("model", "This model's engine takes no prompt while it answers.")

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        """As the protocol says."""
        raise HeadraceError(Code.UNSUPPORTED, "This engine computes no tokens.")

    async def infer(self, work: Work) -> Answer:
        """Run to the end; cancelling the caller cancels the run."""
        sink = CollectingSink(asyncio.get_running_loop().create_future())
        run = self.stream_infer(work, sink)
        try:
            return await sink.answer
        finally:
            run.cancel()

    async def batch_infer(self, works: list[Work]) -> list[Answer | HeadraceError]:
        """Run several, as many at once as there are slots; order is kept."""
        results: list[Answer | HeadraceError] = [_NOT_RUN] * len(works)
        left = iter(range(len(works)))
        lanes = min(self.info().slots or MAX_BATCH_RUNS, MAX_BATCH_RUNS, len(works))
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._run_some(works, left, results))
        return results

    async def _run_some(
        self, works: list[Work], left: Iterator[int], results: list[Answer | HeadraceError]
    ) -> None:
        for at in left:
            try:
                results[at] = await self.infer(works[at])
            except HeadraceError as error:
                results[at] = error

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        """As the protocol says."""
        raise no_tokenizer()

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """As the protocol says."""
        raise no_tokenizer()

    async def count_prompt(self, request: Request) -> int:
        """As the protocol says."""
        raise no_tokenizer()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """As the protocol says."""
        raise HeadraceError(Code.UNSUPPORTED, "This model's engine computes no embeddings.")

    async def cache_usage(self) -> float | None:
        """As the protocol says."""
        return None


def no_tokenizer() -> HeadraceError:
    """The error for a question about tokens where nobody can be asked."""
    return HeadraceError(Code.UNSUPPORTED, "This model's engine has no tokenizer to ask.")


def unsupported(param: str, why: str) -> HeadraceError:
    """The error for a request option that an engine lacks."""
    return HeadraceError(Code.UNSUPPORTED, why, param=param)


def check_has_middle(request: Request) -> None:
    """Raise ``UNSUPPORTED`` for an answer that cannot be closed before its end."""
    if request.goes_on:
        why = "An answer that goes on from a message takes no prompt."
        raise unsupported("messages", why)
    if request.tools:
        raise unsupported("tools", "An answer with tools takes no prompt: a call has no middle.")
    if (request.response_format or {}).get("type", "text") != "text":
        why = "An answer with a format takes no prompt: it would not have the format."
        raise unsupported("response_format", why)


def refuse_extra(request: Request, accepted: frozenset[str]) -> None:
    """Raise ``UNSUPPORTED`` for an engine-specific option that was not declared."""
    for name in request.extra or ():
        if name not in accepted:
            raise unsupported(name, f"This model's engine has no option {name!r}.")


_NOT_RUN = HeadraceError(Code.INTERNAL, "This item was not run.")
