"""``Log``: the append-only sequence of one generation's events, and its readers.

An event is visible once the store has it; readers see it only then.
A reader that keeps up gets the event objects themselves; one that lags or arrives late gets them
again from the store: from what it still has in memory, or read back. One reader's slowness or
failure never costs the engine or another reader anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.hold import Hold, Readers
from headrace.streams.reader import Reader
from headrace.streams.store import ENDS, End, LogHeader, Store

_logger = logging.getLogger("headrace.streams")

EndCallback = Callable[["Log"], None]


class Log:
    """The log of ``header.id``. ``visible_seq``: newest event readers may see. ``end``: the kind of its
    terminal event once that is visible. ``failure``: why it ends without one (the store failed).
    ``appended_seq``: newest event that the store has. ``on_failure``: told of ``failure``, if set, by who appends.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_later",
        "_live",
        "_on_end",
        "_showing",
        "appended_seq",
        "end",
        "failure",
        "header",
        "id",
        "on_failure",
        "readers",
        "store",
        "visible_seq",
    )

    def __init__(
        self,
        header: LogHeader,
        store: Store,
        *,
        visible_seq: int = 0,
        end: End | None = None,
        ended: EndCallback | None = None,
        readers: Readers | None = None,
    ) -> None:
        """``ended``: told as by :meth:`on_end`, before others. ``readers``: counts those of several logs."""
        self.header = header
        self.id = header.id
        self.store = store
        self.visible_seq = visible_seq
        self.appended_seq = visible_seq
        self.end = end
        self._closed = end is not None
        self.failure: HeadraceError | None = None
        self.readers = readers or Readers()
        self._showing = False
        self._later: list[Sequence[Event]] | None = None
        self._live: list[Hold] = []
        self._ended = ended
        self._on_end: list[EndCallback] | None = None
        self.on_failure: Callable[[HeadraceError], None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the terminal event is visible."""
        return self.end is not None

    def append(self, events: Sequence[Event], raw: Sequence[Delta] = ()) -> None:
        """Store these events, numbered from ``appended_seq + 1``, and show them to the readers. After a
        failure of the store nothing more is taken. Raises ``ValueError`` for a wrong ``seq`` and
        for anything after the terminal event: both would break the log for every reader."""
        failure = self.failure
        if failure is not None:
            return
        if self._closed:
            raise ValueError(f"{self.id} has its terminal event; nothing can follow it")
        if events:
            last, before = events[-1], self.appended_seq
            seq, count = last.seq, len(events)
            if seq != before + count or (count > 1 and events[0].seq != before + 1):
                raise ValueError(f"{self.id} continues with seq {before + 1}")
        try:
            self.store.append(self, events, raw)
        except HeadraceError as error:
            self.fail(error)
            return
        if events:
            self.appended_seq = seq
            self._closed = type(last) in ENDS
            if self._showing:  # a reader's doing: all readers see them in order
                self._later = [*(self._later or ()), events]
            else:
                self._show(events)

    def attach(self, reader: Reader) -> Hold:
        """Start a reader at ``seq`` 1. What memory still has is delivered before this returns."""
        hold = Hold(self, reader)
        hold.resume()
        return hold

    def on_end(self, callback: EndCallback) -> None:
        """Call once when the log ends for its readers: the terminal event was delivered to those that
        keep up, or the log failed. At once if that was before."""
        if self.end is not None or self.failure is not None:
            callback(self)
        elif self._on_end is None:
            self._on_end = [callback]
        else:
            self._on_end.append(callback)

    def _show(self, events: Sequence[Event]) -> None:
        last = events[-1]
        self.visible_seq = last.seq
        live = self._live
        end = ENDS.get(type(last))
        if end is not None:
            self.end = end
            self._live = []
        if live:
            self._showing = True
            if len(live) == 1:
                live[0].push(events)
            else:
                for hold in tuple(live):
                    hold.push(events)
            self._showing = False
        if end is not None:
            self._tell_end()
        elif self._later:
            self._show(self._later.pop(0))
        elif self.failure is not None:  # since this was shown
            self._tell_failure(self.failure)

    def fail(self, error: HeadraceError) -> None:
        """Nothing more can be stored; readers get what is visible, then ``lost``."""
        if self.end is not None or self.failure is not None:
            return
        self.failure = error
        if not self._showing:
            self._tell_failure(error)

    def _tell_failure(self, error: HeadraceError) -> None:
        live, self._live = self._live, []
        for hold in live:
            hold.lose(error)
        self._tell_end()
        if self.on_failure is not None:
            self.on_failure(error)

    def join_live(self, hold: Hold) -> None:
        """``hold`` has every visible event: push what comes."""
        self._live.append(hold)

    def leave_live(self, hold: Hold) -> None:
        """No longer push to ``hold``."""
        if hold in self._live:
            self._live.remove(hold)

    def _tell_end(self) -> None:
        if self._ended is not None:
            self._ended(self)
            self._ended = None
        callbacks, self._on_end = self._on_end, None
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception:
                _logger.exception("end of %s: a callback failed", self.id)

    def damaged(self) -> HeadraceError:
        """The error for a log whose stored events stop before its end."""
        return HeadraceError(
            Code.STORE_FAILED,
            f"{self.id}: stored events are missing; the operator can find out why in the server's log",
        )
