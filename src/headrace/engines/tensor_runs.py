"""Requests for one version as runs of its engine.

Runs are on threads of this version's own, as many as it may have at once, unless handing one over would take longer
than it does: see :mod:`headrace.engines.run_times`. How requests become a run, and its outputs their answers, what
they are knows: :mod:`headrace.engines.joined_tensors`, :mod:`headrace.engines.joined_texts`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import Any, Protocol

import msgspec

from headrace.engines.run_threads import RunThreads
from headrace.engines.run_times import RunTimes
from headrace.engines.tensor_engine import TensorEngine


class Joining(Protocol):
    """What makes a run of requests."""

    def kind(self, pending: Sequence[Any], rows: int) -> Hashable:
        """What tells how much there is to do, where the engine is steady."""

    def compute(self, engine: TensorEngine, pending: Sequence[Any]) -> Sequence[Any]:
        """The answer of each, or the error that is its own. Blocks, on any thread. Raises
        :class:`~headrace.domain.errors.HeadraceError` if all failed together."""


class Pending(msgspec.Struct, kw_only=True, eq=False):
    """A request on its way into a run. ``joining``: the same for all that run together. ``rows``: of its run; 1 where
    the model has no batch. ``length``: of the longest of its rows, where they are padded to the longest of a run, which
    is padding to this share at most; 0: nothing is padded. ``own_padding``: elements that its other rows lack to its
    longest, all together. ``came_at``: monotonic seconds; ``began_at``: of its run, 0 until then."""

    joining: Joining
    rows: int = 1
    length: int = 0
    padding: float = 0.0
    own_padding: int = 0
    came_at: float = 0.0
    began_at: float = 0.0


Ran = Callable[[int, float], None]
"""Hears of a run of the engine: how many rows, how many seconds."""


Quiet = Callable[[], bool]
"""Whether nobody else is being served."""


class TensorRuns:
    """The runs of one loaded version. ``threads``: how many at once. ``quiet``: asked on the event loop, before a run
    that may hold it up; not where runs are meant to be beside each other."""

    def __init__(
        self, engine: TensorEngine, threads: int, name: str, ran: Ran, quiet: Quiet
    ) -> None:
        self._engine = engine
        self._threads = RunThreads(threads, f"tensors {name}")
        self._times = RunTimes()
        self._ran = ran
        self._quiet = quiet if threads == 1 else bool

    async def run(self, pending: Sequence[Pending]) -> Sequence[Any]:
        """The answer of each, or the error that is its own. Raises :class:`~headrace.domain.errors.HeadraceError` if
        all failed together."""
        began = monotonic()
        rows = 0
        for one in pending:
            one.began_at = began
            rows += one.rows
        joining = pending[0].joining
        kind = joining.kind(pending, rows)
        if self._may_hold_up(kind):
            made = self._compute(joining, kind, pending)
        else:
            made = await self._threads.run(self._compute, joining, kind, pending)
        self._ran(rows, monotonic() - began)
        return made

    def run_at_once(self, one: Pending) -> Any:
        """The same of one request, in the event loop; None if that is not where it should be done. Raises as
        :meth:`run`."""
        pending = (one,)
        kind = one.joining.kind(pending, one.rows)
        if not self._may_hold_up(kind):
            return None
        one.began_at = began = monotonic()
        (made,) = self._compute(one.joining, kind, pending)
        self._ran(one.rows, monotonic() - began)
        return made

    async def close(self) -> None:
        """Free the engine, once its runs are over."""
        await self._threads.run(self._engine.close)
        self._threads.close()

    def _may_hold_up(self, kind: Hashable) -> bool:
        return self._engine.steady and self._times.may_hold_up(kind, self._quiet)

    def _compute(
        self, joining: Joining, kind: Hashable, pending: Sequence[Pending]
    ) -> Sequence[Any]:
        began = monotonic()
        try:
            return joining.compute(self._engine, pending)
        finally:
            self._times.took(kind, monotonic() - began)
