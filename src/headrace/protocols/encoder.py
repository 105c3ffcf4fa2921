"""The ``Encoder`` protocol: a log's events into the bytes of one wire format, and the two framings.

An encoder is a pure fold over the events from ``seq`` 1 on: the same events give the same bytes, whoever
reads them and when. A resumed stream folds from the beginning too and drops what lies at or before the
client's cursor, so it is byte for byte the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Event, Token
from headrace.protocols.accept import StreamForm
from headrace.protocols.errors import error_body

encode_json = msgspec.json.Encoder().encode

Writer = Callable[[tuple[int, bytes]], bytes]
"""``(seq, data)`` to a message, with everything around ``data`` prepared."""

NO_WRITERS: Mapping[int, Writer] = MappingProxyType({})


class Encoder(Protocol):
    """State of one reader's stream. ``writers``: for choices that have begun, what makes of the ``seq`` and
    the text as JSON of a token that is nothing but text what :meth:`encode` makes of it: whoever has such a
    token may use it, as nearly always. Empty where :meth:`encode` has to be asked."""

    @property
    def writers(self) -> Mapping[int, Writer]: ...

    @property
    def heartbeat(self) -> bytes:
        """What keeps a silent stream alive; empty where there is nothing that means nothing."""

    def encode(self, events: Sequence[Event]) -> bytes:
        """The bytes of these events, empty if this format shows none of them. Each event once, in order."""

    def lost(self, error: HeadraceError) -> bytes:
        """The last message of a stream whose log cannot be read on."""


class Framing(Protocol):
    """How a message is laid on the wire. Server-sent events: WHATWG HTML §9.2; lines: ndjson.org."""

    preamble: bytes
    heartbeat: bytes
    content_type: str

    def message(self, seq: int, data: bytes, name: bytes | None = None) -> bytes:
        """A message that ends an event: it carries the event's cursor where the framing has one."""

    def part(self, data: bytes, name: bytes | None = None) -> bytes:
        """A message that is not its event's last: without a cursor, so that a client which leaves
        after it gets the whole event again."""

    def done(self, seq: int) -> bytes:
        """The end of a good stream, where the framing has such a message."""

    def writer(self, before: bytes, after: bytes, name: bytes | None = None) -> Writer:
        """``writer((seq, data))`` equals ``message(seq, before + data + after, name)``, in a quarter of the
        time."""


class ServerSentEvents:
    """``id: SEQ``, ``event: NAME`` where there is one, ``data: JSON``.

    ``preamble`` and ``heartbeat`` have no empty line of their own: it would end an event without data,
    which openai-python takes for a message that is not JSON.
    """

    preamble = b"retry: 5000\n"
    heartbeat = b":\n"
    content_type = "text/event-stream; charset=utf-8"

    def message(self, seq: int, data: bytes, name: bytes | None = None) -> bytes:
        if name is None:
            return b"id: %d\ndata: %b\n\n" % (seq, data)
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, name, data)

    def part(self, data: bytes, name: bytes | None = None) -> bytes:
        if name is None:
            return b"data: %b\n\n" % data
        return b"event: %b\ndata: %b\n\n" % (name, data)

    def done(self, seq: int) -> bytes:
        return b"id: %d\ndata: [DONE]\n\n" % seq

    def writer(self, before: bytes, after: bytes, name: bytes | None = None) -> Writer:
        event = b"" if name is None else b"event: %b\n" % name
        parts = (event, _literal(before), _literal(after))
        return (b"id: %%d\n%bdata: %b%%b%b\n\n" % parts).__mod__


class Lines:
    """One JSON value a line. No cursors, no heartbeat: an empty line is not a JSON value."""

    preamble = b""
    heartbeat = b""
    content_type = "application/x-ndjson; charset=utf-8"

    def message(self, seq: int, data: bytes, name: bytes | None = None) -> bytes:
        return data + b"\n"

    def part(self, data: bytes, name: bytes | None = None) -> bytes:
        return data + b"\n"

    def done(self, seq: int) -> bytes:
        return b""

    def writer(self, before: bytes, after: bytes, name: bytes | None = None) -> Writer:
        tail = after + b"\n"
        return lambda message: before + message[1] + tail


FRAMINGS: dict[StreamForm, Framing] = {"sse": ServerSentEvents(), "ndjson": Lines()}


class EventEncoder(ABC):
    """An encoder that shows events one by one."""

    __slots__ = ("_framing", "writers")

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self.writers: dict[int, Writer] = {}

    @property
    def heartbeat(self) -> bytes:
        return self._framing.heartbeat

    def lost(self, error: HeadraceError) -> bytes:
        return self._framing.part(error_body(error))

    def encode(self, events: Sequence[Event]) -> bytes:
        pieces = []
        for event in events:
            if (
                type(event) is Token
                and event.logprobs is None
                and event.tool_calls is None
                and not event.reasoning
                and event.index in self.writers
            ):
                data = self.writers[event.index]((event.seq, encode_json(event.text)))
            else:
                data = self._event(event)
            pieces.append(data)
        return b"".join(pieces)

    @abstractmethod
    def _event(self, event: Event) -> bytes:
        """The bytes of one event."""


class Rest:
    """What an encoder has to say after a cursor. It is told of the events before it, to keep its state."""

    __slots__ = ("_after", "_encoder", "heartbeat", "lost")

    writers = NO_WRITERS

    def __init__(self, encoder: Encoder, after: int) -> None:
        self._encoder = encoder
        self._after = after
        self.heartbeat = encoder.heartbeat
        self.lost = encoder.lost

    def encode(self, events: Sequence[Event]) -> bytes:
        known = [event for event in events if event.seq <= self._after]
        if known:
            self._encoder.encode(known)
            events = events[len(known) :]
        return self._encoder.encode(events) if events else b""


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
