"""``multipart/form-data`` (RFC 7578) as it arrives, in pieces of any size; nothing is held but what may be a delimiter.

Strict where a mistake would lose something: every line ends with CRLF, a part has a name, the last delimiter must
come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError

HEAD_BYTES = 4096
"""Of the headers of a part."""
MOST_PARTS = 16
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(r';\s*name="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(r';\s*filename="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)
_ESCAPED = re.compile(r"%0[AD]|%22|\\(.)")


class Part(NamedTuple):
    """A part begins. ``filename``: None for a plain field."""

    name: str
    filename: str | None


class Piece(NamedTuple):
    """More of the part that has begun."""

    data: bytes


class PartEnd(NamedTuple):
    """The part is complete."""


Event = Part | Piece | PartEnd


def boundary_of(content_type: str) -> bytes:
    """Raises ``UNSUPPORTED_MEDIA_TYPE``."""
    found = _BOUNDARY.search(content_type)
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data" or found is None:
        raise HeadraceError(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "The header Content-Type must be multipart/form-data with a boundary, as upload forms have it.",
        )
    return (found[1] or found[2]).encode("latin-1")


class Multipart:
    """Takes the body by :meth:`feed`; :attr:`over` once the last delimiter was there."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # so that the first delimiter is like the others
        self._state: Callable[[Multipart], list[Event] | None] = Multipart._preamble
        # A function and not a method of this object: no cycle is left behind.
        self._parts = 0
        self.over = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """What these bytes complete. Raises ``INVALID_REQUEST``."""
        self._rest += data
        while not self.over:
            found = self._state(self)
            if found is None:
                return
            yield from found

    # Each state takes what it can of the rest; None: it needs more.

    def _preamble(self) -> list[Event] | None:
        if len(self._rest) < len(self._delimiter):
            return None
        if not self._rest.startswith(self._delimiter):
            raise _malformed("it does not begin with its boundary")
        self._rest = self._rest[len(self._delimiter) :]
        self._state = Multipart._behind_delimiter
        return []

    def _behind_delimiter(self) -> list[Event] | None:
        if len(self._rest) < 2:
            return None
        if self._rest.startswith(b"--"):
            self.over = True
        elif self._rest.startswith(b"\r\n"):
            self._state = Multipart._head
        else:
            raise _malformed("a boundary is not followed by a line break")
        self._rest = self._rest[2:]
        return []

    def _head(self) -> list[Event] | None:
        end = self._rest.find(b"\r\n\r\n", 0, HEAD_BYTES)
        if end < 0:
            if len(self._rest) >= HEAD_BYTES:
                raise _malformed("the headers of a part are too long")
            return None
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _malformed(f"it has more than {MOST_PARTS} parts")
        part = _part(self._rest[:end])
        self._rest = self._rest[end + 4 :]
        self._state = Multipart._content
        return [part]

    def _content(self) -> list[Event] | None:
        end = self._rest.find(self._delimiter)
        if end >= 0:
            piece, self._rest = self._rest[:end], self._rest[end + len(self._delimiter) :]
            self._state = Multipart._behind_delimiter
            return [*([Piece(piece)] if piece else []), PartEnd()]
        safe = len(self._rest) - len(self._delimiter)
        if safe <= 0:
            return None
        piece, self._rest = self._rest[:safe], self._rest[safe:]
        return [Piece(piece)]


def _part(head: bytes) -> Part:
    """What the headers of a part say."""
    for line in head.decode("utf-8", "replace").split("\r\n"):
        title, _, value = line.partition(":")
        if title.strip().lower() == "content-disposition":
            name, filename = _NAME.search(value), _FILENAME.search(value)
            if name is not None:
                file = None if filename is None else _unescaped(filename[1])
                return Part(_unescaped(name[1]), file)
    raise _malformed("a part has no name")


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or ('"' if found[0] == "%22" else " "), text)


def _malformed(why: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_REQUEST, f"The body is not multipart/form-data: {why}.")
