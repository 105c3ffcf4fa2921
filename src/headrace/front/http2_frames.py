"""The frames of HTTP/2: the ``h2`` library reads what comes and keeps the states, frames of answers are made here.

The library takes eight times as long to make a DATA frame, and thirty times for the header fields of an answer.
It hears of what was sent by the windows and by ``end_stream``. HPACK's table of what was sent is not used: fields
are literals (RFC 7541 §6.2.2), and the first block says that the table is empty (§6.3).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.frame import Frame

from headrace.front.limits import Limits

FRAME_BYTES = 16 * 1024
"""Largest frame sent (every client takes it): streams take turns after each."""
_STREAM_WINDOW_BYTES = 256 * 1024
_CONNECTION_WINDOW_BYTES = 1024 * 1024

_head = struct.Struct(">HBBBI").pack
"""Of a frame: its length in two parts, type, flags, stream (RFC 9113 §4.1)."""
_DATA, _HEADERS, _GOAWAY, _CONTINUATION = 0, 1, 7, 9
_END_STREAM, _END_HEADERS = 1, 4

_EMPTY_TABLE = b"\x20"
_STATUS_200 = b"\x88"
_STATUS = 8
_NAMES = {
    b"content-length": 28,
    b"content-type": 31,
    b"cache-control": 24,
    b"date": 33,
    b"location": 46,
    b"retry-after": 53,
    b"server": 54,
    b"vary": 59,
}
"""Their places in HPACK's static table (RFC 7541, appendix A)."""

Fields = Sequence[tuple[bytes, bytes]]


class Frames(H2Connection):
    """One connection's. ``window`` is the library's stream: it knows what may be sent, and its state."""

    MAX_CLOSED_STREAMS = (
        256  # how many ended streams are remembered, to tell late frames from wrong ones
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,  # request_head does, once for all that are alike
                normalize_inbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
            },
        )
        self.decoder.max_header_list_size = limits.header_bytes
        self._first = _EMPTY_TABLE

    def begin(self) -> None:
        """Prepare what a server says first."""
        self.initiate_connection()
        self.increment_flow_control_window(_CONNECTION_WINDOW_BYTES)

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """The library describes each frame for a log that is not kept; what is in it need not be."""
        frame._body_repr = _undescribed  # type: ignore[method-assign]
        return super()._receive_frame(frame)

    def room(self, window: H2Stream) -> int:
        """Bytes that may be sent on a stream."""
        return min(self.outbound_flow_control_window, window.outbound_flow_control_window)

    def data(self, window: H2Stream, data: bytes, *, last: bool) -> bytes:
        """A DATA frame, for which there must be room. Raises ``ProtocolError`` for a last one on a stream that
        the client has reset."""
        size = len(data)
        flags = 0
        if last:
            window.end_stream()
            flags = _END_STREAM
        window.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        return _head(size >> 8, size & 255, _DATA, flags, window.stream_id) + data

    def fields(self, window: H2Stream, block: bytes, *, last: bool) -> bytes:
        """The frames of a header block, for the head of an answer or its trailers. Raises as :meth:`data`."""
        flags = _END_HEADERS
        if last:
            window.end_stream()
            flags |= _END_STREAM
        block, self._first = self._first + block, b""
        size = len(block)
        if size <= FRAME_BYTES:
            return _head(size >> 8, size & 255, _HEADERS, flags, window.stream_id) + block
        pieces = [block[at : at + FRAME_BYTES] for at in range(0, size, FRAME_BYTES)]
        kinds = [_HEADERS, *[_CONTINUATION] * (len(pieces) - 1)]
        ends = [flags & _END_STREAM, *[0] * (len(pieces) - 2), _END_HEADERS]
        return b"".join(
            _head(len(piece) >> 8, len(piece) & 255, kind, end, window.stream_id) + piece
            for piece, kind, end in zip(pieces, kinds, ends, strict=True)
        )

    def goaway(self) -> bytes:
        """A frame that says that no further stream is taken. After the library's own it lets no stream end."""
        last = self.highest_inbound_stream_id
        return _head(0, 8, _GOAWAY, 0, 0) + struct.pack(">LL", last, ErrorCodes.NO_ERROR)


def _undescribed() -> str:
    return ""


def status_field(status: int) -> bytes:
    """``:status`` as it begins a block."""
    return _STATUS_200 if status == 200 else b"%c\x03%d" % (_STATUS, status)


def block(fields: Fields) -> bytes:
    """Fields as a block, or as a further part of one. Names are in lower case."""
    return b"".join([_name(name) + _string(value) for name, value in fields])


def _name(name: bytes) -> bytes:
    place = _NAMES.get(name)
    return b"\0" + _string(name) if place is None else b"\x0f%c" % (place - 15)


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return b"%c%b" % (size, value)
    size -= 127
    digits = bytearray(b"\x7f")
    while size >= 128:
        digits.append(size & 127 | 128)
        size >>= 7
    digits.append(size)
    return bytes(digits) + value
