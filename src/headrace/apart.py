"""A model's engine that rows of jobs have to themselves, there while there are rows."""

from __future__ import annotations

from collections.abc import Callable

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.lazy import LazyEngine
from headrace.flow import Flow
from headrace.occasional import IDLE_S, LOOK_S, Occasional


class Apart(Occasional):
    """``flow``: of the rows, whose only replica's engine is ``engine``; ``leading``: of all others."""

    def __init__(
        self,
        flow: Flow,
        engine: LazyEngine,
        leading: Flow,
        tell: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(engine, leading, tell, look_s=look_s, idle_s=idle_s)
        self.flow = flow

    @property
    def _needed(self) -> bool:
        return bool(self.flow.queue.waiting or self.flow.running)

    @property
    def _without(self) -> str:
        return f"rows of jobs for {self.flow.model.name} run beside everything else"

    def _gave_up(self, error: HeadraceError) -> None:
        """Rows that wait here are asked again by their jobs, and go elsewhere."""
        for waiting in self.flow.queue.items():
            self.flow.queue.remove(waiting)
            waiting.fail(HeadraceError(Code.ENGINE_UNAVAILABLE, error.message))
