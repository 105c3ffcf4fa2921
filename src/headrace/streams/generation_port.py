"""What a generation asks of those around it: hooks, whoever runs it, who counts."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.request import Message
from headrace.streams.hook import HookContext

if TYPE_CHECKING:
    from headrace.streams.generation import Generation


class Chain(Protocol):
    """The configured hooks as one (:class:`headrace.streams.hooks.HookChain`)."""

    @property
    def is_async(self) -> bool:
        """Whether some method is a coroutine function."""

    def on_token(
        self, context: HookContext, deltas: Sequence[Delta]
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]: ...

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]: ...

    def on_turn_end(self, context: HookContext) -> Sequence[Delta] | Awaitable[Sequence[Delta]]: ...

    def on_finish(
        self, context: HookContext, end: Finish | Error
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]: ...


class Owner(Protocol):
    """Whoever runs generations (the service) hears of their turning points."""

    def run_failed(self, generation: Generation, error: HeadraceError) -> bool:
        """A run broke. True: the owner goes on with another run; False: the generation ends."""

    def prefilling(self, generation: Generation) -> None:
        """Its engine has begun with its prompt. Only of one that has a ticket, and where the engine says so."""

    def first_token(self, generation: Generation) -> None:
        """Its first token is visible."""

    def prompted(self, generation: Generation) -> None:
        """Messages were added and its run stopped: the owner goes on with another."""

    def ending(self, generation: Generation, end: Finish | Error) -> None:
        """The terminal event is about to be appended. Only of a generation that has a reservation."""

    def ended(self, generation: Generation, end: Finish | Error) -> None:
        """The terminal event was appended; the slot is free."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Run something that waits, until it is done or the owner stops."""

    def left(self, generation: Generation) -> None:
        """The last client closed its stream before the end."""


class Meter(Protocol):
    """Counts visible tokens: the first ones of a generation, ``after_s`` seconds after it was admitted; then
    ``count`` of them together, ``gap_s`` seconds after the ones before."""

    def first_token(self, after_s: float) -> None: ...
    def tokens(self, count: int, gap_s: float) -> None: ...
