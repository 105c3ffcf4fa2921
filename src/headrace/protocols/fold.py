"""A whole log folded into its choices: what an answer without a stream is made of."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self) -> None:
        self.texts: list[str] = []
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


class Fold:
    """Takes events in order; ``end`` is the terminal one as soon as it has come."""

    __slots__ = ("choices", "end")

    def __init__(self, choices: int) -> None:
        self.choices = [FoldedChoice() for _ in range(choices)]
        self.end: Finish | Error | None = None

    def add(self, events: Sequence[Event]) -> None:
        choices = self.choices
        for event in events:
            if type(event) is Token:  # not a match, which asks the classes of structs at length
                if event.logprobs is None and event.tool_calls is None and not event.reasoning:
                    choices[event.index].texts.append(event.text)
                else:
                    choices[event.index].add(event)
            elif type(event) is Finish or type(event) is Error:
                self.end = event

    def finish(self) -> Finish:
        """The good end. Raises the error that the log ended with."""
        end = self.end
        assert end is not None
        if type(end) is Finish:
            return end
        assert isinstance(end, Error)
        raise from_event(end)
