"""A stream of events: the reader of a log that answers a call, and all that read so for the end of the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import TYPE_NAMES, Error, Event
from headrace.protocols.errors import from_event
from headrace.protocols.follower import Follower
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.events import EventMessages
from headrace.protocols.grpc.status import OK
from headrace.protocols.port import Generation


class Waiting(Protocol):
    """A call under way that reads a log."""

    def interrupt(self) -> None:
        """The server stops before the log has ended: tell the client."""


class EventStreams:
    """Calls under way that read a log; bounded by the calls that the wires allow."""

    def __init__(self) -> None:
        self._open: set[Waiting] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Waiting) -> None:
        self._open.add(stream)

    def discard(self, stream: Waiting) -> None:
        self._open.discard(stream)

    def close(self) -> None:
        """The server stops: end what has not ended, and say where to read on."""
        for stream in tuple(self._open):
            stream.interrupt()


class EventStream(Follower):
    """One reader of one log. ``reading``: it does not answer for the generation, it only looks; leaving never
    cancels then. ``after``: the client has the events up to here. ``shows``: events that it does not
    want are False here."""

    __slots__ = (
        "_after",
        "_call",
        "_encode",
        "_generation",
        "_reading",
        "_seq",
        "_shows",
        "_streams",
    )

    def __init__(
        self,
        call: RpcCall,
        generation: Generation,
        streams: EventStreams,
        *,
        reading: bool,
        after: int = 0,
        shows: dict[str, bool] | None = None,
    ) -> None:
        super().__init__(streams)
        self._streams = streams
        self._call = call
        self._generation = generation
        self._reading = reading
        self._after = after
        self._seq = after
        self._shows = shows or {}
        self._encode = EventMessages(generation.id).encode

    def attach(self) -> None:
        """Begin to read; what the log has already is sent before this returns."""
        call = self._call
        call.start(self._generation.id)
        call.reply.watch(self._gone, self._drained)
        if self._is_over():  # the client has left already
            return
        self._streams.add(self)
        counts = not self._reading or self._generation.caller.leaving.durable
        subscription = self._generation.attach(self, client=counts)
        if self._is_over():
            subscription.close()
        else:
            self._subscription = subscription

    def events(self, events: Sequence[Event]) -> bool:
        """Send; False while the client lags."""
        if self._closed:
            return True
        last = events[-1]
        try:
            if self._shows or events[0].seq <= self._after:
                events = [event for event in events if self._shown(event)]
            messages = list(map(self._encode, events))
            if messages and not self._call.reply.send(messages):
                self._lagging = True
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            self._close()
            self._call.crash()
            return True
        self._seq = last.seq
        if last.end is not None and not self._closed:
            self._close()
            if isinstance(last, Error):
                self._call.fail(from_event(last))
            else:
                self._call.reply.end(OK)
        return not self._lagging

    def lost(self, error: HeadraceError) -> None:
        """The log cannot be read on."""
        if not self._closed:
            self._close()
            self._call.fail(error)

    def interrupt(self) -> None:
        """The server stops before the log has ended: it goes on after the next start."""
        if self._closed:
            return
        self._gone()
        said = "The server stops; the generation goes on when it is back. Read on with `resume`."
        error = HeadraceError(Code.INTERRUPTED, said)
        event = pb.Event(timestamp=time.time(), generation_id=self._generation.id)
        event.error.code = error.code.value
        event.error.message = said
        event.error.retryable = True
        event.error.resume.generation_id = self._generation.id
        event.error.resume.after = self._seq
        self._call.reply.send((event.SerializeToString(),))
        self._call.fail(error)

    def _shown(self, event: Event) -> bool:
        if event.seq <= self._after:
            return False
        return not self._shows or self._shows.get(TYPE_NAMES[type(event)], True)
