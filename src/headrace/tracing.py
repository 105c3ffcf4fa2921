"""What the service tells of a generation that is recorded: its attempts and its end, never its tokens."""

from __future__ import annotations

from typing import Protocol

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.trace import Trace
from headrace.streams.generation import Generation
from headrace.streams.store import LogHeader


class GenerationTrace(Protocol):
    """The spans of one generation."""

    def attempt(self, replica: str) -> Trace:
        """It got a place, and a run begins there. Returns what the engine is told."""

    def broke(self, error: HeadraceError) -> None:
        """That run failed."""

    def prompted(self) -> None:
        """Messages were added; a run that was under way has ended, and another will begin."""

    def moved(self) -> None:
        """It waits for another one."""

    def ended(self, end: Finish | Error) -> None:
        """The terminal event was appended."""


class Tracer(Protocol):
    """Whoever records generations."""

    def unrecorded(self) -> bytes:
        """What an engine is told of a run that is not recorded, where its caller has no trace: header lines."""

    def generation(self, generation: Generation, model: str) -> GenerationTrace | None:
        """Record a generation of ``model`` that begins, or goes on after a restart; None if its trace is not
        sampled."""

    def interrupted(self, begun: LogHeader, end: Error) -> None:
        """Nobody goes on with a generation of an earlier process: it ended now."""
