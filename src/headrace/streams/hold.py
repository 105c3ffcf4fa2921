"""``Hold``: a reader's place in a log, the :class:`~headrace.streams.reader.Subscription` of ``Log.attach``.

Three ways to the next event, in this order: given by the log as it is appended (the reader keeps up), from
what the store has in memory, read back by the store. Each event once and in order, whichever way it comes:
``seq`` is the newest event delivered, and nothing is delivered that does not follow it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.reader import Reader

if TYPE_CHECKING:
    from headrace.streams.log import Log

_logger = logging.getLogger("headrace.streams")

DETACHED = "a reader of %s failed and was detached"
CHUNK_BYTES = 16 * 1024
"""Encoded events handed to a catching-up reader at once: it can say *enough* after each."""


class _Nobody:
    """In the place of a reader that is over, so that no cycle keeps it from being freed at once."""

    def events(self, events: Sequence[Event]) -> bool:
        return False

    def lost(self, error: HeadraceError) -> None:
        return None


NOBODY = _Nobody()


# Where a hold is. Plain numbers: they are looked at often.
LIVE = 1
"""Has everything; one of the log's ``live``."""
BEHIND = 2
"""Is being caught up."""
LAGGING = 3
"""Said enough; waits for ``resume``."""
OVER = 4
"""Gets nothing more."""


class Hold:
    """One reader of one log. Made by :meth:`headrace.streams.log.Log.attach`. The log gives a live hold's
    ``reader`` what is appended, and notes its ``seq`` before.
    """

    __slots__ = ("_again", "_log", "_task", "place", "reader", "seq")

    # Neither is there before it is needed, which is seldom.
    _task: asyncio.Task[None]
    """What reads from the store."""
    _again: int
    """``resume`` was called since the event of this number was delivered, or within its delivery."""

    def __init__(self, log: Log, reader: Reader, place: int) -> None:
        self._log = log
        self.reader = reader
        self.place = place
        self.seq = 0

    @property
    def over(self) -> bool:
        """Whether the reader has its terminal event, has lost the log, or was closed."""
        return self.place == OVER

    def of(self, id: str) -> bool:
        """Whether it reads this log."""
        return self._log.id == id

    def resume(self) -> None:
        """Go on after ``events`` returned False. Without effect unless the reader lags; from within ``events``,
        what that returns does not count."""
        if self.place == LAGGING:
            self.place = BEHIND
            self._catch_up()
        else:
            self._again = self.seq

    def close(self) -> None:
        """Stop reading; idempotent. The reader is not called any more."""
        if self.place != OVER:
            self.leave()
            task = getattr(self, "_task", None)
            if task is not None:
                task.cancel()

    def enough(self) -> None:
        """The reader, a live one, returned False."""
        if self.place == LIVE and not self._goes_on():
            self.place = LAGGING
            self._log.fall_behind(self)

    def lose(self, error: HeadraceError) -> None:
        """The log cannot be read on: the reader's last call."""
        if self.place == OVER:
            return
        reader = self.reader
        self.leave()
        try:
            reader.lost(error)
        except Exception:
            _logger.exception(DETACHED, self._log.id)

    def leave(self) -> None:
        """The reader gets nothing more."""
        place, self.place = self.place, OVER
        self.reader = NOBODY
        if place == LIVE:
            self._log.leave_live(self)
        else:
            self._log.owner.behind.discard(self)

    def _give(self, events: Sequence[Event]) -> bool:
        """Deliver. Whether to go on: the reader takes more, and is not over."""
        last = events[-1]
        self.seq = last.seq
        try:
            more = self.reader.events(events)
        except Exception:
            _logger.exception(DETACHED, self._log.id)
            self.leave()
            return False
        if last.end is not None:
            self.leave()
        return (more or self._goes_on()) and self._is(BEHIND)

    def _goes_on(self) -> bool:
        """Whether the reader said so itself, whatever it returned."""
        return getattr(self, "_again", 0) == self.seq

    def _catch_up(self) -> None:
        """Deliver from memory until the reader has everything, says enough, or the store is needed."""
        log = self._log
        while self._is(BEHIND):
            if self.seq >= log.visible_seq:
                self._arrive()
                return
            events = log.owner.store.recent(log.id, self.seq, CHUNK_BYTES)
            if not events:
                self._task = asyncio.get_running_loop().create_task(self._read_store())
                return
            self._advance(events)

    def _advance(self, events: Sequence[Event]) -> None:
        """Deliver while behind; a reader that says enough lags from then on."""
        visible_seq = self._log.visible_seq
        if events and events[-1].seq > visible_seq:
            # The store has them, but the log has not shown them yet: it will give them itself.
            events = [event for event in events if event.seq <= visible_seq]
        if not events:
            self.lose(self._log.damaged())
        elif self._is(BEHIND) and not self._give(events) and self._is(BEHIND):
            self.place = LAGGING

    def _is(self, place: int) -> bool:
        """Any call into the reader may have moved this hold; so this is asked, never remembered."""
        return self.place == place

    def _arrive(self) -> None:
        """Everything visible is delivered: live from here, unless nothing more can come."""
        log = self._log
        if log.failure is not None:
            self.lose(log.failure)
        elif log.ended:
            self.lose(log.damaged())
        else:
            self.place = LIVE
            log.join_live(self)

    async def _read_store(self) -> None:
        """A part that is not in memory. The one task of this hold; memory is asked again after each part."""
        log = self._log
        try:
            self._advance(await log.owner.store.read(log.id, self.seq, CHUNK_BYTES))
        except HeadraceError as error:
            self.lose(error)
        except Exception:
            _logger.exception("%s cannot be read from the store", log.id)
            self.lose(HeadraceError(Code.STORE_FAILED, f"{log.id} cannot be read from the store"))
        del self._task  # and no cycle is left
        self._catch_up()
