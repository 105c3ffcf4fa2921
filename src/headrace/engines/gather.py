"""The deltas of a streamed answer that nobody wants one by one, put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from headrace.domain.delta import Delta


class Gather:
    """Takes deltas; a choice's neighbours of one kind (text, reasoning, one tool call) become one."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[Delta] = []

    def take(self, deltas: Iterable[Delta]) -> None:
        self._pieces.extend(deltas)

    def whole(self) -> list[Delta]:
        """What was taken, one choice after the other, in order."""
        found: list[Delta] = []
        run: list[Delta] = []
        for delta in sorted(self._pieces, key=attrgetter("index")):
            if run and not _continues(run[-1], delta):
                found.append(_joined(run))
                run = []
            run.append(delta)
        if run:
            found.append(_joined(run))
        return found


def _continues(before: Delta, delta: Delta) -> bool:
    if before.index != delta.index or before.reasoning != delta.reasoning:
        return False
    if not (before.tool_calls or delta.tool_calls):
        return True
    if delta.text or len(before.tool_calls or ()) != 1 or len(delta.tool_calls or ()) != 1:
        return False
    (one,), (other,) = before.tool_calls or (), delta.tool_calls or ()
    return one.index == other.index and other.id is None and other.name is None


def _joined(run: list[Delta]) -> Delta:
    first = run[0]
    if len(run) == 1:
        return first
    calls = first.tool_calls
    if calls:
        arguments = "".join(call.arguments for delta in run for call in delta.tool_calls or ())
        calls = (msgspec.structs.replace(calls[0], arguments=arguments),)
    logprobs = tuple(one for delta in run for one in delta.logprobs or ())
    return Delta(
        "".join(delta.text for delta in run),
        first.index,
        tuple(_ids(run)),
        first.reasoning,
        logprobs or None,
        calls,
    )


def _ids(run: list[Delta]) -> Iterator[int]:
    for delta in run:
        yield from delta.token_ids
