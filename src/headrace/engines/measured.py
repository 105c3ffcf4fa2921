"""An upstream that does not say how many requests it can have: how long it takes to begin an answer is measured.

So it is always asked for a stream, for only that says when the first token came; where nobody reads along, the
answer is put together here. Who goes on from a beginning is not measured: how long its prompt is nobody here knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.domain.request import Request
from headrace.engines.connection import Write, at_once
from headrace.engines.engine import Run, Sink, Work
from headrace.engines.gather import Gather
from headrace.engines.openai import OpenAIEngine, OpenAIOptions


class Room(Protocol):
    """Who decides what this engine gets. ``in_use``: how many runs it has, weighed by their choices."""

    in_use: int

    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None:
        """A first token came so long after its run began, which had so many beside it, itself counted."""


class MeasuredEngine(OpenAIEngine):
    """``room`` is told, once it is there."""

    def __init__(
        self,
        options: OpenAIOptions,
        prompt_tokens: Callable[[Request], float],
        write: Write = at_once,
    ) -> None:
        """``prompt_tokens``: about how long a request's prompt is. Raises as :class:`OpenAIEngine` does."""
        super().__init__(msgspec.structs.replace(options, slots=0), write)
        self._prompt_tokens = prompt_tokens
        self.room: Room | None = None

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        room = self.room
        if room is None or work.prefixes:
            return super().stream_infer(work, sink)
        measured = MeasuredRun(room, self._prompt_tokens(work.request), sink, work.live)
        if not work.live:
            work = msgspec.structs.replace(work, live=True)
        measured.run = super().stream_infer(work, measured)
        return measured


class MeasuredRun:
    """Sink of a run, and the run itself to who started it. ``live``: its output is wanted as it comes."""

    __slots__ = ("_began_at", "_gather", "_in_flight", "_room", "_sink", "_tokens", "run")

    def __init__(self, room: Room, prompt_tokens: float, sink: Sink, live: bool) -> None:
        self._room: Room | None = room
        self._tokens = prompt_tokens
        self._in_flight = room.in_use
        self._sink = sink
        self._gather = None if live else Gather()
        self._began_at = time.monotonic()
        self.run: Run | None = None

    def cancel(self) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.cancel()

    def deltas(self, deltas: list[Delta]) -> None:
        if self._room is not None:
            self._measure()
        if self._gather is None:
            self._sink.deltas(deltas)
        else:
            self._gather.take(deltas)

    def prefill(self, done: int, total: int) -> None:
        if self._gather is None:
            self._sink.prefill(done, total)

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self.run = None
        self._measure()
        if self._gather is not None:
            self._gather.take(deltas)
            deltas = self._gather.whole()
        self._sink.finished(outcome, deltas)

    def failed(self, error: HeadraceError) -> None:
        self.run = None
        self._sink.failed(error)

    def _measure(self) -> None:
        """The first that it says, or its end if it says nothing."""
        room, self._room = self._room, None
        if room is not None:
            room.took(self._tokens, time.monotonic() - self._began_at, self._in_flight)
