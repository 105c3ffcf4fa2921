"""The dynamic batcher at work: who asks waits for its own result, and runs are tasks that it owns.

The decisions are :mod:`headrace.scheduling.batcher`'s. They are made at the end of the event loop's turn: whoever came
in one turn is in one run. Where runs are of one row, nothing is to be decided about who comes to an idle engine: a run
that is short enough is done at once, and has no part in all this: one a turn, as it holds the loop up.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from time import monotonic
from typing import Generic, TypeVar

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.standing import USUAL, Standing
from headrace.scheduling.batcher import Batch, Batcher, BatchOptions, Entry, full, too_late
from headrace.scheduling.queue import Overflow

_logger = logging.getLogger("headrace.scheduling")

T = TypeVar("T")
R = TypeVar("R")

Run = Callable[[Sequence[T]], Awaitable[Sequence[R | HeadraceError]]]
"""Computes items of one key, together; an error in an item's place is that item's. Raises :class:`HeadraceError` if
all failed together."""
AtOnce = Callable[[T], R | HeadraceError | None]
"""Computes one item and returns what :data:`Run` would of it; None where that would hold up the event loop: then it was
not computed. Raises :class:`HeadraceError`."""

_OVERFLOWS = {str(one): one for one in Overflow}

OF_THE_ENGINE = frozenset(
    (Code.ENGINE_UNAVAILABLE, Code.ENGINE_TIMEOUT, Code.MODEL_LOADING, Code.SHUTTING_DOWN)
)
"""What no item is to blame for: nothing is run again without it."""


class Batching(Generic[T, R]):
    """Runs of one model. ``run`` is called at most ``options.instances`` times at once, with items whose rows together
    are at most ``options.max_batch_size``; ``at_once``, where nothing is to be gathered, with what it will take."""

    def __init__(
        self, run: Run[T, R], options: BatchOptions, at_once: AtOnce[T, R] | None = None
    ) -> None:
        """Raises :class:`ValueError` for impossible options."""
        self._run = run
        self._at_once = at_once if options.max_batch_size == 1 else None
        self._batcher: Batcher[T] = Batcher(options)
        self._runs: set[asyncio.Task[None]] = set()  # bounded by the instances
        self._due = self._held_up = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether who comes now would find no room."""
        return self._batcher.full

    @property
    def waiting(self) -> int:
        """Requests that wait for a run."""
        return self._batcher.waiting

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._runs)

    async def submit(
        self,
        item: T,
        *,
        key: Hashable = None,
        rows: int = 1,
        standing: Standing = USUAL,
        length: int = 0,
        padding: float = 0.0,
        own_padding: int = 0,
    ) -> R:
        """Its result, of a run together with others of this ``key``. ``length``, ``padding`` and ``own_padding`` as of
        :class:`~headrace.scheduling.batcher.Entry`. Cancelled, it leaves its run, if that has not
        begun. Raises the item's own error, ``INVALID_REQUEST`` for too many rows, ``QUEUE_FULL``, ``QUEUE_TIMEOUT``
        and ``SHUTTING_DOWN``."""
        if self._closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        if self._batcher.is_alone(rows, standing.deadline, monotonic()):
            found = self._try_at_once(item, loop)
            if found is not None:
                return found
        answer: asyncio.Future[R] = loop.create_future()
        overflow = _OVERFLOWS[standing.overflow]
        entry = Entry(
            item,
            key,
            rows,
            standing.priority,
            standing.deadline,
            overflow,
            standing.sheddable,
            length,
            padding,
            own_padding,
            answer,
        )
        gave_way = self._batcher.add(entry, monotonic())
        if gave_way is not None:
            _refuse(gave_way, full(self._batcher.waiting))
        if self._batcher.idle:
            self._decide_soon(loop)
        elif entry.deadline < self._alarm_at:
            self._wake_at(entry.deadline)
        try:
            return await answer
        finally:
            self._batcher.remove(entry)
            # An error that is raised here has this frame, and they have the error.
            del answer, entry

    async def close(self) -> None:
        """Refuse who waits and who comes, and let the runs under way end."""
        self._closed = True
        for entry in self._batcher.clear():
            _refuse(entry, _closed())
        if self._alarm is not None:
            self._alarm.cancel()
        await asyncio.gather(*self._runs)

    def _try_at_once(self, item: T, loop: asyncio.AbstractEventLoop) -> R | None:
        """Its result, if it is short and none of this turn of the loop was done so. Raises its error."""
        if self._at_once is None or self._held_up:
            return None
        try:
            found = self._at_once(item)
        except HeadraceError as error:
            found = error
        except Exception:
            _logger.exception("a run of a request failed in the server")
            found = _ours()
        if found is not None:
            self._held_up = True
            loop.call_soon(self._turn_ends)
        if isinstance(found, HeadraceError):
            try:
                raise found
            finally:
                del found  # it has this frame
        return found

    def _turn_ends(self) -> None:
        self._held_up = False

    def _decide_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._due:
            self._due = True
            loop.call_soon(self._decide)

    def _decide(self) -> None:
        self._due = False
        while True:
            decision = self._batcher.decide(monotonic())
            for entry in decision.late:
                _refuse(entry, too_late())
            if decision.batch is None:
                break
            task = asyncio.get_running_loop().create_task(self._carry_out(decision.batch))
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)
        if decision.look_at < self._alarm_at:
            self._wake_at(decision.look_at)

    def _wake_at(self, when: float) -> None:
        """An alarm that comes too early does no harm: it looks, and is set again."""
        if self._alarm is not None:
            self._alarm.cancel()
        delay = (
            math.ceil(max(0.0, when - monotonic()) * 1000.0) / 1000.0
        )  # uvloop's are of whole ms
        self._alarm = asyncio.get_running_loop().call_later(delay, self._woken)
        self._alarm_at = when

    def _woken(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._decide()

    async def _carry_out(self, batch: Batch[T]) -> None:
        """The next run begins before anybody hears of this one: what answers cost does not keep the engine idle."""
        entries = batch.entries
        well = False
        try:
            found = await self._run_once(entries)
            well = not isinstance(found, HeadraceError)
            if isinstance(found, HeadraceError):
                await self._divide(entries, found, _Trials(len(entries)))
        finally:
            self._batcher.ended(batch, monotonic(), well=well)
            if not self._closed:
                self._decide()
        if not isinstance(found, HeadraceError):
            _settle(entries, found)

    async def _divide(
        self, entries: Sequence[Entry[T]], error: HeadraceError, trials: _Trials
    ) -> None:
        """They failed together: run their halves, so that only who is to blame fails."""
        left = [entry for entry in entries if not entry.answer.done()]
        if len(left) < 2 or error.code in OF_THE_ENGINE or not trials.another():
            for entry in left:
                _refuse(entry, error)
            return
        middle = len(left) // 2
        for half in (left[:middle], left[middle:]):
            found = await self._run_once(half)
            if isinstance(found, HeadraceError):
                await self._divide(half, found, trials)
            else:
                _settle(half, found)

    async def _run_once(self, entries: Sequence[Entry[T]]) -> Sequence[object] | HeadraceError:
        """What each of them has; or what all of them failed with together."""
        try:
            results = await self._run([entry.item for entry in entries])
            if len(results) != len(entries):
                raise RuntimeError(f"{len(results)} results for {len(entries)} items")
        except HeadraceError as error:
            return error
        except Exception:
            _logger.exception("a run of %d requests failed in the server", len(entries))
            return _ours()
        return results


class _Trials:
    """How often a run of ``size`` is divided: often enough to find two bad items. A broken engine is not asked once
    an item."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size.bit_length()

    def another(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _settle(entries: Sequence[Entry[T]], results: Sequence[object]) -> None:
    for entry, result in zip(entries, results, strict=True):
        answer = entry.answer
        if answer.done():  # its caller left
            continue
        if isinstance(result, HeadraceError):
            answer.set_exception(result)
        else:
            answer.set_result(result)


def _refuse(entry: Entry[T], error: HeadraceError) -> None:
    """With an error of its own: each that is raised has other frames."""
    if not entry.answer.done():
        own = HeadraceError(
            error.code, error.message, param=error.param, retry_after_s=error.retry_after_s
        )
        entry.answer.set_exception(own)


def _ours() -> HeadraceError:
    """What an exception that nobody expected is to who asked."""
    return HeadraceError(Code.INTERNAL, "The server failed at this request; its log says why.")


def _closed() -> HeadraceError:
    return HeadraceError(Code.SHUTTING_DOWN, "The model is being closed; try again shortly.")
