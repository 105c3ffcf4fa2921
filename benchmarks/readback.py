"""Does the log hold what clients received? Reads every recorded stream back and compares it, byte for byte.

A stream that the client read to its end must be there whole; of one that was cut, what had arrived must
be how the log begins. An answer in one piece must have a log that ends with ``finish``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

Message = tuple[int, int]
"""``seq`` (0 where the message had no id) and CRC-32 of its data."""


class Received(NamedTuple):
    """What a client got of one generation."""

    generation: str
    complete: bool
    messages: tuple[Message, ...]


class Check(NamedTuple):
    """``events``: messages compared. ``missing``: generations that do not hold what was received, with the reason."""

    generations: int
    events: int
    missing: tuple[str, ...]


def received(records: Sequence[Path]) -> Iterator[Received]:
    """The streams of the load generator's records. One without a generation id never began."""
    for record in records:
        generation, complete, messages = "-", False, []
        for line in record.read_text().splitlines():
            first, second, *rest = line.split()
            if first != "stream":
                messages.append((int(first), int(second, 16)))
                continue
            if generation != "-":
                yield Received(generation, complete, tuple(messages))
            generation, complete, messages = second, rest == ["1"], []
        if generation != "-":
            yield Received(generation, complete, tuple(messages))


def check(port: int, key: str, records: Sequence[Path], limit: int | None = None) -> Check:
    """Compare what was received with the log, by the API. ``limit``: at most so many generations, evenly spread."""
    everything = list(received(records))
    step = 1 if limit is None else max(1, -(-len(everything) // limit))
    chosen = everything[::step]
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    missing, events = [], 0
    for stream in chosen:
        trouble = _compare(connection, key, stream)
        events += max(1, len(stream.messages))
        if trouble:
            missing.append(f"{stream.generation}: {trouble}")
    connection.close()
    return Check(len(chosen), events, tuple(missing))


def _compare(connection: HTTPConnection, key: str, stream: Received) -> str:
    """Why the log does not hold it; empty if it does."""
    in_pieces = bool(stream.messages)
    wanted = "openai" if in_pieces else "native"
    path = f"/v1/generations/{stream.generation}/events?format={wanted}"
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    if answer.status != 200:
        return f"status {answer.status} {answer.read()[:200]!r}"
    if not in_pieces:
        return "" if _types(answer)[-1:] == ["finish"] or not stream.complete else "no finish"
    kept = list(_messages(answer))
    held = kept if stream.complete else kept[: len(stream.messages)]
    if tuple(held) == stream.messages:
        return ""
    at = next(
        (i for i, (a, b) in enumerate(zip(kept, stream.messages, strict=False)) if a != b), None
    )
    return f"{len(stream.messages)} received, {len(kept)} kept, first difference at {at}"


def _messages(answer: HTTPResponse) -> Iterator[Message]:
    for block in answer.read().split(b"\n\n"):
        seq, crc = 0, None
        for line in block.split(b"\n"):
            if line.startswith(b"id:"):
                seq = int(line[3:])
            elif line.startswith(b"data:"):
                crc = crc32(line[5:].removeprefix(b" "))
        if crc is not None:
            yield seq, crc


def _types(answer: HTTPResponse) -> list[str]:
    lines = answer.read().splitlines()
    return [json.loads(line[5:])["type"] for line in lines if line.startswith(b"data:")]
