"""Server-sent events as bytes come in: any chunk boundary, bounded memory.

The rule of this file: how a stream is cut into reads never changes what comes out
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream). What every
engine sends (``data: …`` and a blank line) takes a path that only calls into C.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Bytes of one event, field names included; a longer one breaks the stream."""

_BOM = b"\xef\xbb\xbf"
CR = 13
LF = 10
"""As numbers: looked for as bytes, each look would cost an exception inside of CPython."""


class SseEvent(NamedTuple):
    """One event. ``name`` is empty where the stream named none; ``id`` is the last id seen."""

    name: bytes
    data: bytes
    id: bytes


class SseParser:
    """An incremental parser. An event that the end of the stream cuts off is never seen, as the
    standard says. Raises ``ENGINE_FAILED`` for an event over :data:`MAX_EVENT_BYTES`, only.

    ``between``: nothing of what came before matters to what comes next, so that a whole plain event may
    be read by others."""

    __slots__ = ("_after_cr", "_at_start", "_tail", "_tail_bytes", "between", "last_id", "retry_ms")

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._at_start = True
        self._after_cr = False
        self.between = False
        self.last_id = b""
        self.retry_ms: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The data payloads of the events that these bytes complete."""
        if (
            data[:6] == b"data: "
            and data[-2:] == b"\n\n"
            and CR not in data
            and not self._tail_bytes
            and not self._after_cr
            and len(data) <= MAX_EVENT_BYTES
        ):
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(LF) == 2 * len(payloads):
                self._at_start = False
                self.between = True
                return payloads
        return self._payloads(self._blocks(data))

    def _payloads(self, blocks: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        for block in blocks:
            if block[:6] == b"data: " and LF not in block:
                payloads.append(block[6:])
            else:
                events: list[SseEvent] = []
                self._take(block, events)
                payloads.extend(event.data for event in events)
        return payloads

    def feed_events(self, data: bytes) -> list[SseEvent]:
        """The events that these bytes complete, with their names and ids."""
        events: list[SseEvent] = []
        for block in self._blocks(data):
            self._take(block, events)
        return events

    def _blocks(self, data: bytes) -> list[bytes]:
        """Complete blocks between blank lines, line ends made ``\\n``; the ragged tail is kept."""
        self.between = False
        data = self._normalised(data)
        if not data:
            return []
        tail = self._tail
        closes = b"\n\n" in data or (bool(tail) and tail[-1][-1:] == b"\n" == data[:1])
        tail.append(data)
        self._tail_bytes += len(data)
        if not closes:
            self._check_size(self._tail_bytes)
            return []
        blocks = b"".join(tail).split(b"\n\n")
        self._keep(blocks.pop())
        for block in blocks:
            self._check_size(len(block))
        return blocks

    def _keep(self, rest: bytes) -> None:
        self._tail = [rest] if rest else []
        self._tail_bytes = len(rest)
        self.between = not (rest or self._after_cr)
        self._check_size(len(rest))

    def _normalised(self, data: bytes) -> bytes:
        if self._at_start:
            data = self._without_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == b"\n":
                data = data[1:]
        if CR in data:
            self._after_cr = data[-1:] == b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _without_bom(self, data: bytes) -> bytes:
        """Wait until the first bytes say whether they are a byte order mark."""
        data = b"".join((*self._tail, data))
        self._tail, self._tail_bytes = [], 0
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._tail, self._tail_bytes = ([data], len(data)) if data else ([], 0)
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _take(self, block: bytes, events: list[SseEvent]) -> None:
        """One block of lines. Only a block with a ``data`` field makes an event."""
        name = b""
        lines: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                lines.append(value)
            elif field == b"event":
                name = value
            elif field == b"id":
                self.last_id = self.last_id if b"\0" in value else value
            elif field == b"retry" and value.isdigit() and len(value) < 10:
                self.retry_ms = int(value)
        if lines:
            events.append(SseEvent(name, b"\n".join(lines), self.last_id))

    def _check_size(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise HeadraceError(
                Code.ENGINE_FAILED,
                f"The engine sent an event over {MAX_EVENT_BYTES} bytes; its stream was cut.",
            )
