"""``Raw``: what an engine has computed of one choice, to go on from."""

from __future__ import annotations

from array import array

from headrace.domain.delta import Delta, Prefix
from headrace.domain.event import ToolCallDelta


class Raw:
    """What one choice's engine has produced so far, for going on from it: its text and token ids.

    ``held`` are ids whose text was not delivered: an engine holds text back that could become a stop
    string. ``deltas`` is how many tokens it is, as far as one can tell, where the engine says no ids.
    They are not part of the prefix; a delta without text and ids drops them (a new run began).
    ``calls`` are the tool calls told, by their index.
    """

    __slots__ = ("calls", "deltas", "held", "ids", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.deltas = 0
        self.ids = array("i")
        self.held: tuple[int, ...] = ()
        self.calls: dict[int, list[ToolCallDelta]] | None = None

    def add(self, delta: Delta) -> None:
        if delta.tool_calls:
            if self.calls is None:
                self.calls = {}
            for call in delta.tool_calls:
                self.calls.setdefault(call.index, []).append(call)
        if delta.text or delta.tool_calls:
            self.text.append(delta.text)
            self.deltas += 1
            self.ids.extend(self.held)
            self.ids.extend(delta.token_ids)
            self.held = ()
        else:
            self.held = self.held + delta.token_ids if delta.token_ids else ()

    @property
    def tokens(self) -> int:
        """How many it is."""
        return len(self.ids) or self.deltas

    def prefix(self) -> Prefix:
        calls = tuple(map(_joined, self.calls.values())) if self.calls else ()
        ids = tuple(self.ids)
        return Prefix("".join(self.text), ids, self.tokens, calls)


def _joined(pieces: list[ToolCallDelta]) -> ToolCallDelta:
    """A tool call in one piece."""
    first = pieces[0]
    arguments = "".join(piece.arguments for piece in pieces)
    return ToolCallDelta(first.index, first.id, first.name, arguments)
