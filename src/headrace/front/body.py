"""Request bodies while they arrive: bounded, strictly framed (RFC 9112 §6–7)."""

from __future__ import annotations

import re

from headrace.front.refusal import Refusal

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")

_LINE_BYTES = 1024
"""Length of one chunk-size or trailer line."""
_TRAILERS = 32
_FREE_CHUNKS = 16 * 1024
"""Chunks of any size that a body may have; beyond, they must be 64 bytes long on average."""


class SizedBody:
    """A body of ``length`` bytes."""

    __slots__ = ("_left", "content")

    def __init__(self, length: int) -> None:
        self.content = bytearray()
        self._left = length

    def feed(self, data: bytes) -> bytes | None:
        """Take of ``data`` what belongs to the body. What comes after it, or None: more is to come."""
        left = self._left
        if len(data) < left:
            self.content += data
            self._left = left - len(data)
            return None
        self.content += memoryview(data)[:left]
        self._left = 0
        return data[left:]


class OpenBody:
    """A body that something else tells the end of."""

    __slots__ = ("_limit", "content")

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> bytes | None:
        """Take all of it. Raises :class:`Refusal` 413."""
        if len(self.content) + len(data) > self._limit:
            raise Refusal(413, f"the body is longer than {self._limit} bytes")
        self.content += data
        return None


class ChunkedBody:
    """A body in chunks. Extensions and trailers are read and dropped."""

    __slots__ = ("_chunks", "_left", "_limit", "_rest", "_total", "_trailers", "content")

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self._total = 0  # of all chunks so far; the content may have been taken away
        self._limit = limit
        self._rest = b""  # an incomplete line, at most _LINE_BYTES
        self._left = -1  # bytes of the chunk with its CRLF to come; -1: a size line is
        self._chunks = 0
        self._trailers = -1  # lines of the trailer section so far; -1: not there yet

    def feed(self, data: bytes) -> bytes | None:
        """As :meth:`SizedBody.feed`. Raises :class:`Refusal` 400 or 413."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        while at < len(data):
            if self._left >= 0:
                at = self._chunk(data, at)
                if at < 0:
                    return None
                continue
            end = data.find(b"\n", at, at + _LINE_BYTES)
            if end < 0:
                self._keep(data[at:])
                return None
            if data[end - 1 : end] != b"\r" or end == at:
                raise Refusal(400, "a line of the chunked body does not end with CRLF")
            line = data[at : end - 1]
            at = end + 1
            if self._trailers >= 0:
                if self._trailer(line):
                    return data[at:]
            else:
                self._size(line)
        return None

    def _keep(self, rest: bytes) -> None:
        if len(rest) >= _LINE_BYTES:
            raise Refusal(400, f"a line of the chunked body is longer than {_LINE_BYTES} bytes")
        self._rest = rest

    def _chunk(self, data: bytes, at: int) -> int:
        """Take of the chunk what is there; the position after it, or -1."""
        left = self._left  # content and CRLF
        here = min(left - 2, len(data) - at)
        if here > 0:
            self.content += memoryview(data)[at : at + here]
            at += here
            self._left = left = left - here
        if left > 2 or len(data) - at < 2:
            self._rest = data[at:] if left <= 2 else b""
            return -1
        if data[at : at + 2] != b"\r\n":
            raise Refusal(400, "a chunk is longer than its size says")
        self._left = -1
        return at + 2

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Refusal(400, "malformed chunk size")
        size = int(match[1], 16)
        if self._total + size > self._limit:
            raise Refusal(413, f"the body is longer than {self._limit} bytes")
        self._chunks += 1
        if self._chunks > _FREE_CHUNKS + self._total // 64:
            raise Refusal(400, "the chunks are too small")
        self._total += size
        if size:
            self._left = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> bool:
        """Whether this line ends the body."""
        if not line:
            return True
        self._trailers += 1
        if self._trailers > _TRAILERS or not _TRAILER.fullmatch(line):
            raise Refusal(400, "malformed trailer section")
        return False
