"""``Log``: the append-only sequence of one generation's events, and its readers.

An event is visible once the store has it; readers see it only then.
A reader that keeps up gets the event objects themselves; one that lags or arrives late gets them
again from the store: from what it still has in memory, or read back. One reader's slowness or
failure never costs the engine or another reader anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import End, Event
from headrace.streams.hold import DETACHED, LAGGING, LIVE, NOBODY, OVER, Hold
from headrace.streams.reader import Reader
from headrace.streams.store import LeftEarly, LogHeader, LogWriter, Store

_logger = logging.getLogger("headrace.streams")


class Owner(Protocol):
    """Whoever holds logs (the hub). ``store``: where they are; ``behind``: their readers that do not have
    everything."""

    @property
    def store(self) -> Store: ...

    @property
    def behind(self) -> set[Hold]: ...

    def ended(self, log: Log) -> None:
        """Nothing follows: its terminal event was delivered to those that keep up, or it failed."""


class Log:
    """The log of a generation. ``visible_seq``: newest event readers may see. ``end``: the kind of its
    terminal event once that is visible. ``failure``: why it ends without one (the store failed).
    ``on_failure``: told of ``failure``, if set, by who appends. ``live``: readers that have everything.
    """

    __slots__ = (
        "_free",
        "_later",
        "_writer",
        "end",
        "failure",
        "header",
        "live",
        "on_failure",
        "owner",
        "visible_seq",
    )

    def __init__(
        self,
        header: LogHeader,
        owner: Owner,
        *,
        visible_seq: int = 0,
        end: End | None = None,
        writer: LogWriter | None = None,
    ) -> None:
        """``writer``: of a log that has events already and goes on."""
        self.header = header
        self.owner = owner
        self.visible_seq = visible_seq
        self.end = end
        self.failure: HeadraceError | None = None
        self.live: tuple[Hold, ...] = ()
        self.on_failure: Callable[[HeadraceError], None] | None = None
        self._writer = writer
        # Nothing is being shown at the moment, and the log is not over.
        self._free = end is None
        # Appended while something was being shown. Not None if there is anything to do behind that.
        self._later: list[tuple[Sequence[Event], Sequence[Delta]]] | None = None

    @property
    def id(self) -> str:
        return self.header.id

    @property
    def ended(self) -> bool:
        """Whether the terminal event is visible."""
        return self.end is not None

    @property
    def appended_seq(self) -> int:
        """The newest event that was appended; it may wait until those before it were shown."""
        for events, _ in reversed(self._later or ()):
            if events:
                return events[-1].seq
        return self.visible_seq

    def append(self, events: Sequence[Event], raw: Sequence[Delta] = ()) -> None:
        """Store these events, numbered from ``appended_seq + 1``, and show them to the readers; by a reader's
        doing, as soon as all have what it is being shown. After a failure of the store nothing more is
        taken. Raises ``ValueError`` for a wrong ``seq`` and for anything after the terminal event: both
        would break the log for every reader."""
        # All of an event's way in one function: a call for each step would cost more than the steps.
        if not self._free:
            self._append_later(events, raw)
            return
        end = None
        if events:
            last = events[-1]
            seq = last.seq
            count = len(events)
            if seq != self.visible_seq + count or (count > 1 and events[0].seq != seq - count + 1):
                raise ValueError(f"{self.id} continues with seq {self.visible_seq + 1}")
            end = last.end
        try:
            writer = self._writer
            if writer is not None:
                writer.append(events, raw, end)
            else:
                self._writer = self.owner.store.begin(self.header, events, raw, end)
        except HeadraceError as error:
            self.fail(error)
            return
        if not events:
            return
        self.visible_seq = seq
        live = self.live
        if end is not None:
            self.end = end
            self.live = ()
        self._free = False
        for hold in live:
            hold.seq = seq
            try:
                more = hold.reader.events(events)
            except Exception:
                _logger.exception(DETACHED, self.id)
                hold.leave()
                continue
            if end is not None:
                hold.place = OVER
                hold.reader = NOBODY
            elif not more:
                hold.enough()
        if end is not None:
            self.owner.ended(self)
            return
        self._free = True
        if self._later is not None:
            self._go_on()

    def amend(self, header: LogHeader) -> None:
        """Another header, before the first event."""
        self.header = header
        if isinstance(self._writer, LeftEarly):
            self._writer.header = header

    def left(self, left_at: float | None) -> None:
        """Note when the last client left (None: one came back), for after a restart."""
        if self._writer is None:
            self._writer = LeftEarly(self.owner.store, self.header)
        self._writer.left(left_at)

    def attach(self, reader: Reader) -> Hold:
        """Start a reader at ``seq`` 1. What memory still has is delivered before this returns."""
        if self.visible_seq or not self._free:
            hold = Hold(self, reader, LAGGING)
            self.owner.behind.add(hold)
            hold.resume()
        else:
            hold = Hold(self, reader, LIVE)
            self.live += (hold,)
        return hold

    def fail(self, error: HeadraceError) -> None:
        """Nothing more can be stored; readers get what is visible, then ``lost``."""
        if self.end is not None or self.failure is not None:
            return
        self.failure = error
        if self._free:
            self._tell_failure(error)
        else:
            self._later = self._later or []  # told when all have what is being shown

    def _append_later(self, events: Sequence[Event], raw: Sequence[Delta]) -> None:
        """The log is over; or this comes by the doing of a reader that is being shown something."""
        if self.failure is not None:
            return
        later = self._later or []
        if self.end is not None or any(
            before and before[-1].end is not None for before, _ in later
        ):
            raise ValueError(f"{self.id} has its terminal event; nothing can follow it")
        if events:
            following = self.appended_seq + 1
            if events[0].seq != following or events[-1].seq != following + len(events) - 1:
                raise ValueError(f"{self.id} continues with seq {following}")
        later.append((events, raw))
        self._later = later

    def _go_on(self) -> None:
        """With what came while events were shown; each may be followed by more."""
        while self._later and self.failure is None:
            events, raw = self._later.pop(0)
            if not self._later:
                self._later = None
            self.append(events, raw)
        if self.failure is not None and self._free:
            self._tell_failure(self.failure)

    def _tell_failure(self, error: HeadraceError) -> None:
        self._free = False
        self._later = None
        live, self.live = self.live, ()
        for hold in live:
            hold.lose(error)
        self.owner.ended(self)
        if self.on_failure is not None:
            self.on_failure(error)

    # Told by the holds.

    def join_live(self, hold: Hold) -> None:
        """``hold`` has every visible event: it gets what comes."""
        self.owner.behind.discard(hold)
        self.live += (hold,)

    def leave_live(self, hold: Hold) -> None:
        """``hold`` gets nothing from here."""
        live = self.live
        if hold in live:
            at = live.index(hold)
            self.live = live[:at] + live[at + 1 :]

    def fall_behind(self, hold: Hold) -> None:
        """``hold`` takes no more for now."""
        self.leave_live(hold)
        self.owner.behind.add(hold)

    def damaged(self) -> HeadraceError:
        """The error for a log whose stored events stop before its end."""
        if not self.header.request.keep and self.ended:
            said = f"{self.id} was not to be kept (`store`: false), and ended too long ago to be read on."
            return HeadraceError(Code.GENERATION_NOT_FOUND, said)
        return HeadraceError(
            Code.STORE_FAILED,
            f"{self.id}: stored events are missing; the operator can find out why in the server's log",
        )
