"""The output of a response: its items, put together from the log's tokens in the order they came.

One state machine for streams and whole answers: a stream says each :class:`Change` as it happens, a whole
answer only what has become of the items. https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from headrace.domain.event import Token, TokenLogprob, ToolCallDelta

Kind = Literal["reasoning", "message", "call"]
Status = Literal["in_progress", "completed", "incomplete"]

_PREFIXES: dict[Kind, str] = {"reasoning": "rs_", "message": "msg_", "call": "fc_"}


class Item:
    """One item. ``at``: its place in the output. Texts and arguments are kept in the pieces they came in."""

    __slots__ = ("at", "call_id", "id", "kind", "logprobs", "name", "pieces", "status")

    def __init__(self, kind: Kind, id: str, at: int, call: ToolCallDelta | None = None) -> None:
        self.kind: Kind = kind
        self.id = id
        self.at = at
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.call_id = (call.id if call is not None else None) or id.replace("fc_", "call_")
        self.name = (call.name if call is not None else None) or ""
        self.status: Status = "in_progress"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def outside(self, logprobs: bool) -> dict[str, Any]:
        """The item as clients see it."""
        if self.kind == "call":
            return {
                "type": "function_call",
                "id": self.id,
                "call_id": self.call_id,
                "name": self.name,
                "arguments": self.text,
                "status": self.status,
            }
        content = [self.part(logprobs)] if self.pieces else []
        if self.kind == "reasoning":
            return {"type": "reasoning", "id": self.id, "summary": [], "content": content}
        return {
            "type": "message",
            "id": self.id,
            "status": self.status,
            "role": "assistant",
            "content": content,
        }

    def part(self, logprobs: bool) -> dict[str, Any]:
        """Its one part of content."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        said = [token_logprob(entry) for entry in self.logprobs] if logprobs else []
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": said}


class Change(NamedTuple):
    """What a token did to an item. ``text``: what was added; ``logprobs``: of that."""

    what: Literal["opened", "said", "closed"]
    item: Item
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class Output:
    """The items of one generation's first choice, which is the only one. ``ulid``: the generation's."""

    def __init__(self, ulid: str) -> None:
        self._ulid = ulid
        self.items: list[Item] = []
        self._speaking: Item | None = None
        """The text or reasoning that the next token may go on with."""
        self._calls: dict[int, Item] = {}

    def token(self, event: Token) -> Iterator[Change]:
        """Take the next token; those of other choices are left out."""
        if event.index:
            return
        if event.text or (event.logprobs and not event.tool_calls):
            yield from self._say(event)
        for piece in event.tool_calls or ():
            yield from self._call(piece)

    def end(self, status: Status) -> Iterator[Change]:
        """Nothing more comes: ``status`` is that of what is still open."""
        for item in self.items:
            if item.status == "in_progress":
                item.status = status
                yield Change("closed", item)
        self._speaking = None

    def outside(self, logprobs: bool) -> list[dict[str, Any]]:
        """All items as clients see them."""
        return [item.outside(logprobs) for item in self.items]

    def _say(self, event: Token) -> Iterator[Change]:
        kind: Kind = "reasoning" if event.reasoning else "message"
        item = self._speaking
        if item is None or item.kind != kind:
            yield from self._hush()
            item = self._speaking = self._new(kind)
            yield Change("opened", item)
        item.pieces.append(event.text)
        logprobs = event.logprobs or ()
        item.logprobs.extend(logprobs)
        yield Change("said", item, event.text, logprobs)

    def _call(self, piece: ToolCallDelta) -> Iterator[Change]:
        item = self._calls.get(piece.index)
        if item is None:
            yield from self._hush()
            item = self._calls[piece.index] = self._new("call", piece)
            yield Change("opened", item)
        if piece.arguments:
            item.pieces.append(piece.arguments)
            yield Change("said", item, piece.arguments)

    def _hush(self) -> Iterator[Change]:
        item, self._speaking = self._speaking, None
        if item is not None:
            item.status = "completed"
            yield Change("closed", item)

    def _new(self, kind: Kind, call: ToolCallDelta | None = None) -> Item:
        at = len(self.items)
        earlier = sum(item.kind == kind for item in self.items)
        id = _PREFIXES[kind] + self._ulid + (f"_{earlier}" if earlier else "")
        item = Item(kind, id, at, call)
        self.items.append(item)
        return item


def token_logprob(entry: TokenLogprob) -> dict[str, Any]:
    """A token's probability as output_text has it."""
    return {
        "token": entry.token,
        "logprob": -9999.0 if entry.logprob is None else entry.logprob,
        "bytes": list(entry.bytes),
        "top_logprobs": [
            {"token": token, "logprob": logprob, "bytes": list(raw)}
            for token, logprob, raw in entry.top
        ],
    }
