"""``Hold``: a reader's place in a log, the :class:`~headrace.streams.reader.Subscription` of ``Log.attach``.

Three ways to the next event, in this order: pushed by the log (the reader keeps up), from what the
store has in memory, read back by the store. Each event once and in order, whichever way it comes: ``_seq`` is
the newest event delivered, and nothing is delivered that does not follow it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.reader import Reader
from headrace.streams.store import ENDS

if TYPE_CHECKING:
    from headrace.streams.log import Log

_logger = logging.getLogger("headrace.streams")

_DETACHED = "a reader of %s failed and was detached"
CHUNK_BYTES = 16 * 1024
"""Encoded events handed to a catching-up reader at once: it can say *enough* after each."""


class _Nobody:
    """In the place of a reader that is over, so that no cycle keeps it from being freed at once."""

    def events(self, events: Sequence[Event]) -> bool:
        return False

    def lost(self, error: HeadraceError) -> None:
        return None


_NOBODY = _Nobody()


# Where a hold is. Plain numbers: they are looked at with every batch.
_LIVE = 1
"""Has everything; the log pushes."""
_BEHIND = 2
"""Is being caught up."""
_LAGGING = 3
"""Said enough; waits for ``resume``."""
_OVER = 4
"""Gets nothing more."""


class Readers:
    """``count``: readers that are attached to logs."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Hold:
    """One reader of one log. Made by :meth:`headrace.streams.log.Log.attach`."""

    __slots__ = ("_again", "_busy", "_log", "_place", "_reader", "_seq", "_task")

    def __init__(self, log: Log, reader: Reader) -> None:
        self._log = log
        log.readers.count += 1
        self._reader = reader
        self._seq = 0
        self._place: int = _LAGGING
        self._busy = False
        self._again = False
        self._task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        """The newest event this reader was given, 0 before the first."""
        return self._seq

    @property
    def over(self) -> bool:
        """Whether the reader has its terminal event, has lost the log, or was closed."""
        return self._place == _OVER

    def resume(self) -> None:
        """Go on after ``events`` returned False. Without effect unless the reader lags."""
        if self._busy:
            self._again = True
        elif self._place == _LAGGING:
            self._place = _BEHIND
            self._catch_up()

    def close(self) -> None:
        """Stop reading; idempotent. The reader is not called any more."""
        self._leave()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def push(self, events: Sequence[Event]) -> None:
        """From the log: the reader has everything before these. May take it out of the live ones."""
        if self._place == _LIVE and not self._give(events) and self._is(_LIVE):
            self._log.leave_live(self)
            self._place = _LAGGING

    def lose(self, error: HeadraceError) -> None:
        """The log cannot be read on: the reader's last call."""
        if self._place == _OVER:
            return
        reader = self._reader
        self._leave()
        try:
            reader.lost(error)
        except Exception:
            _logger.exception(_DETACHED, self._log.id)

    def _leave(self) -> None:
        if self._place == _LIVE:
            self._log.leave_live(self)
        if self._place != _OVER:
            self._log.readers.count -= 1
        self._place = _OVER
        self._reader = _NOBODY

    def _give(self, events: Sequence[Event]) -> bool:
        """Deliver. Whether to go on: the reader takes more, and is not over."""
        last = events[-1]
        self._seq = last.seq
        self._again = False
        self._busy = True
        try:
            more = self._reader.events(events)
        except Exception:
            _logger.exception(_DETACHED, self._log.id)
            self._leave()
            return False
        finally:
            self._busy = False
        if type(last) in ENDS:
            self._leave()
            return False
        return (more or self._again) and self._place != _OVER

    def _catch_up(self) -> None:
        """Deliver from memory until the reader has everything, says enough, or the store is needed."""
        log = self._log
        while self._is(_BEHIND):
            if self._seq >= log.visible_seq:
                self._arrive()
                return
            events = log.store.recent(log.id, self._seq, CHUNK_BYTES)
            if not events:
                self._task = asyncio.get_running_loop().create_task(self._read_store())
                return
            self._advance(events)

    def _advance(self, events: Sequence[Event]) -> None:
        """Deliver while behind; a reader that says enough lags from then on."""
        visible_seq = self._log.visible_seq
        if events and events[-1].seq > visible_seq:
            # The store has them, but the log has not shown them yet: it will push them itself.
            events = [event for event in events if event.seq <= visible_seq]
        if not events:
            self.lose(self._log.damaged())
        elif self._is(_BEHIND) and not self._give(events) and self._is(_BEHIND):
            self._place = _LAGGING

    def _is(self, place: int) -> bool:
        """Any call into the reader may have moved this hold; so this is asked, never remembered."""
        return self._place == place

    def _arrive(self) -> None:
        """Everything visible is delivered: live from here, unless nothing more can come."""
        log = self._log
        if log.failure is not None:
            self.lose(log.failure)
        elif log.ended:
            self.lose(log.damaged())
        else:
            self._place = _LIVE
            log.join_live(self)

    async def _read_store(self) -> None:
        """A part that is not in memory. The one task of this hold; memory is asked again after each part."""
        log = self._log
        try:
            self._advance(await log.store.read(log.id, self._seq, CHUNK_BYTES))
        except HeadraceError as error:
            self.lose(error)
        except Exception:
            _logger.exception("%s cannot be read from the store", log.id)
            self.lose(HeadraceError(Code.STORE_FAILED, f"{log.id} cannot be read from the store"))
        self._task = None
        self._catch_up()
