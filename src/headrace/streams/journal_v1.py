"""Journal files as headrace wrote them before they were mapped: read once, after a crash of that version.

A frame (length, CRC-32 seeded with its number, number) holds records of several logs; a log's header is
a record of its own, in the frame of its first events.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from zlib import crc32

from headrace.streams.record import Record

_FRAME = Struct("<IIQ")
_RECORD = Struct("<BQIIIII")
_BEGIN = 1
"""The kind of record that is a header; the other kinds are those of today."""


def read_records_v1(data: bytes) -> Iterator[Record]:
    """Every whole record of a file, none if it is no such journal."""
    at = 0
    while at + _FRAME.size <= len(data):
        length, checksum, number = _FRAME.unpack_from(data, at)
        start = at + _FRAME.size
        body = data[start : start + length]
        if not length or len(body) < length or crc32(body, number & 0xFFFFFFFF) != checksum:
            return
        yield from _records(number, body)
        at = start + length


def _records(frame: int, body: bytes) -> Iterator[Record]:
    headers: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        kind, n, first, events, run_length, raw_count, raw_length = _RECORD.unpack_from(body, at)
        middle = at + _RECORD.size + run_length
        run, at = body[at + _RECORD.size : middle], middle + raw_length
        if kind == _BEGIN:
            headers[n] = run
        else:
            header = headers.pop(n, b"")
            yield Record(frame, kind, n, first, events, header, run, raw_count, body[middle:at])
