"""Server-sent events from a blocking response, for the terminal chat (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec


class Message(msgspec.Struct, frozen=True):
    """One message. ``id`` is None where it has none of its own."""

    data: str
    id: str | None = None


def messages(lines: Iterable[bytes]) -> Iterator[Message]:
    """The complete messages of a stream of lines; a torn last one is dropped."""
    data: list[str] = []
    id_: str | None = None
    for line in lines:
        text = line.decode().rstrip("\r\n")
        if not line.endswith(b"\n"):
            return
        if not text:
            if data:
                yield Message("\n".join(data), id_)
            data, id_ = [], None
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id":
            id_ = value
