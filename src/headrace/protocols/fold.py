"""A whole log folded into its choices: what an answer without a stream is made of."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.domain.event import (
    Error,
    Event,
    Finish,
    Token,
    TokenLogprob,
)
from headrace.protocols.errors import from_event


class FoldedCall:
    """A tool call put together from its pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""


class FoldedChoice:
    """One choice put together from its events."""

    __slots__ = ("calls", "logprobs", "texts", "thoughts")

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.thoughts: list[str] = []
        self.calls: dict[int, FoldedCall] = {}
        self.logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    def add(self, event: Token) -> None:
        (self.thoughts if event.reasoning else self.texts).append(event.text)
        if event.logprobs is not None:
            self.logprobs.extend(event.logprobs)
        for piece in event.tool_calls or ():
            call = self.calls.setdefault(piece.index, FoldedCall())
            call.id = piece.id or call.id
            call.name = piece.name or call.name
            call.arguments += piece.arguments


class Fold(msgspec.Struct, eq=False):
    """The reader of a whole log. ``texts``: the first choice's. ``more``: the choices that have more than
    text, or are not the first; None while there is no such, as in nearly every log. ``end``: the terminal
    event as soon as it has come."""

    texts: list[str] = []
    more: dict[int, FoldedChoice] | None = None
    end: Finish | Error | None = None

    __repr__ = object.__repr__  # subclasses know a request, which has secrets

    def events(self, events: Sequence[Event]) -> bool:
        for event in events:
            if type(event) is Token:  # not a match, which asks the classes of structs at length
                if (
                    event.logprobs is None
                    and event.tool_calls is None
                    and not event.reasoning
                    and not event.index
                ):
                    self.texts.append(event.text)
                else:
                    self._choice(event.index).add(event)
            elif type(event) is Finish or type(event) is Error:
                self.end = event
                self.over()
        return True

    def over(self) -> None:
        """``end`` has come."""

    def finish(self) -> Finish:
        """The good end. Raises the error that the log ended with."""
        end = self.end
        if type(end) is Finish:
            return end
        assert type(end) is Error
        raise from_event(end)

    def choices(self, count: int) -> list[FoldedChoice]:
        """The first ``count`` choices."""
        return [self._choice(index) for index in range(count)]

    def _choice(self, index: int) -> FoldedChoice:
        if self.more is None:
            self.more = {}
        choice = self.more.get(index)
        if choice is None:
            self.more[index] = choice = FoldedChoice([] if index else self.texts)
        return choice
