"""A model's engine for those whose first token is due while others have the slots, there while there are some."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from headrace.domain.errors import HeadraceError
from headrace.engines.engine import Engine
from headrace.engines.lazy import LazyEngine
from headrace.flow import Flow
from headrace.occasional import LOOK_S, Occasional
from headrace.routing.model import Place, Replica
from headrace.scheduling.recent import Recent
from headrace.streams.generation import Generation

IDLE_S = 3600.0
"""It is loaded when two tenants meet, which is too late for the first of them: so it stays for a while."""
MISSED = 64
DELAY_S = 0.5
"""Who comes first has its first token by then, and the load does not make it later."""


class Express(Occasional):
    """``replica``: whose engine is ``engine``; ``leading``: the flow of the model's own. ``missed``: who found no place
    there, the newest of them. ``recent``: who asked for how much: it is for those who ask for little, as two processes
    side by side do less than one."""

    def __init__(
        self,
        replica: Replica[Engine],
        engine: LazyEngine,
        leading: Flow,
        tell: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        idle_s: float = IDLE_S,
        delay_s: float = DELAY_S,
    ) -> None:
        super().__init__(engine, leading, tell, look_s=look_s, idle_s=idle_s, delay_s=delay_s)
        self.replica = replica
        self.missed: deque[Generation] = deque(maxlen=MISSED)
        self.recent = Recent()

    def place(self) -> Place[Engine] | None:
        """A slot for one that needs it now; None while it has none."""
        replica = self.replica
        if not replica.ready or replica.in_use >= replica.slots:
            return None
        replica.in_use += 1
        return Place(replica, 1)

    @property
    def _needed(self) -> bool:
        return self.replica.in_use > 0

    @property
    def _without(self) -> str:
        return f"who is pressed at {self.replica.name} takes a slot from others"

    def _gave_up(self, error: HeadraceError) -> None:
        """Nobody waits for it: see the queue of the model."""
