"""The output of a generation's first choice: its items, put together from the log's tokens in the order they came.

One state machine for streams and whole answers: a stream says each :class:`Change` as it happens, a whole
answer only what has become of the items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from headrace.domain.errors import HeadraceError
from headrace.domain.event import (
    Error,
    Event,
    Finish,
    Prompt,
    Token,
    TokenLogprob,
    ToolCallDelta,
)
from headrace.protocols.port import Generation, Subscription

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


class Change(NamedTuple):
    """What a token did to an item. ``text``: what was added; ``logprobs``: of that."""

    what: Literal["opened", "said", "closed"]
    item: Item
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class Output:
    """The items of one generation. ``one_at_a_time``: an item ends where the next begins; else a call is open
    until the end, since a later piece may belong to it."""

    def __init__(self, generation: Generation, *, one_at_a_time: bool = False) -> None:
        self._ulid = generation.id[4:]  # after "gen_"
        self._one_at_a_time = one_at_a_time
        self.items: list[Item] = []
        self._speaking: Item | None = None
        """The text or reasoning that the next token may go on with."""
        self._calls: dict[int, Item] = {}

    @property
    def text(self) -> str:
        """Of all messages, without reasoning."""
        return "".join(item.text for item in self.items if item.kind == "message")

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
        if self._one_at_a_time:
            yield from self.end("completed")
            return
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


class Added(NamedTuple):
    """A message that came in mid-stream, behind so many characters of the answer's text."""

    behind: int
    prompt: Prompt


class OutputReader:
    """The reader of a whole log. ``over`` is called once it has ended or cannot be read on."""

    def __init__(self, generation: Generation, *, one_at_a_time: bool = False) -> None:
        self.generation = generation
        self.output = Output(generation, one_at_a_time=one_at_a_time)
        self.added: list[Added] = []
        self.end: Finish | Error | None = None
        self.error: HeadraceError | None = None
        self._subscription: Subscription | None = None
        self._open = True

    def begin(self, *, client: bool) -> None:
        subscription = self.generation.attach(self, client=client)
        if self._open:
            self._subscription = subscription

    def events(self, events: Sequence[Event]) -> bool:
        for event in events:
            if isinstance(event, Token):
                for _ in self.output.token(event):
                    pass
            elif isinstance(event, Prompt):
                self.added.append(Added(len(self.output.text), event))
            elif isinstance(event, Finish | Error):
                self.end = event
                self._finish()
        return True

    def lost(self, error: HeadraceError) -> None:
        self.error = error
        self._finish()

    def over(self) -> None:
        """``end`` or ``error`` has come."""

    def close(self) -> None:
        """Read no more."""
        subscription, self._subscription = self._subscription, None
        self._open = False
        if subscription is not None:
            subscription.close()

    def _finish(self) -> None:
        if self._open:
            self._open = False
            self._subscription = None  # it holds this reader: no cycle is left behind
            self.over()
