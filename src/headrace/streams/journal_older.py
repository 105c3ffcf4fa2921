"""Journal files as versions before wrote them: read once, after a crash of such a version.

Version 2 had other records. In version 1, before files were mapped, a frame (length, CRC-32 seeded with its
number, number) held records of several logs; a log's header was a record of its own, in the frame of its
first events.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from zlib import crc32

from headrace.streams.record import Record

MAGIC_2 = b"headrace journal 2\n"
_FRAME_2 = Struct("<II")
_RECORD_2 = Struct("<QBQIIIII")
_FRAME_1 = Struct("<IIQ")
_RECORD_1 = Struct("<BQIIIII")
_BEGIN_1 = 1
"""The kind of record that is a header; the other kinds are those of today."""


def read_records_v2(data: bytes) -> Iterator[Record]:
    """Every whole record of a file that starts with ``MAGIC_2``."""
    at = len(MAGIC_2)
    while at + _FRAME_2.size <= len(data):
        length, checksum = _FRAME_2.unpack_from(data, at)
        start = at + _FRAME_2.size
        body = data[start : start + length]
        if not length or len(body) < length or crc32(body) != checksum:
            return
        frame, kind, n, _, count, header, run, raw_count = _RECORD_2.unpack_from(body)
        middle = _RECORD_2.size + header
        end = middle + run
        yield Record(
            frame,
            kind,
            n,
            count,
            body[_RECORD_2.size : middle],
            body[middle:end],
            raw_count,
            body[end:],
        )
        at = start + length


def read_records_v1(data: bytes) -> Iterator[Record]:
    """Every whole record of a file, none if it is no such journal."""
    at = 0
    while at + _FRAME_1.size <= len(data):
        length, checksum, number = _FRAME_1.unpack_from(data, at)
        start = at + _FRAME_1.size
        body = data[start : start + length]
        if not length or len(body) < length or crc32(body, number & 0xFFFFFFFF) != checksum:
            return
        yield from _records_v1(number, body)
        at = start + length


def _records_v1(frame: int, body: bytes) -> Iterator[Record]:
    headers: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        kind, n, _, events, run_length, raw_count, raw_length = _RECORD_1.unpack_from(body, at)
        middle = at + _RECORD_1.size + run_length
        run, at = body[at + _RECORD_1.size : middle], middle + raw_length
        if kind == _BEGIN_1:
            headers[n] = run
        else:
            header = headers.pop(n, b"")
            yield Record(frame, kind, n, events, header, run, raw_count, body[middle:at])
