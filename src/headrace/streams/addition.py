"""``Addition``: messages on their way into a running generation, behind what its hooks hold back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Prompt
from headrace.domain.request import Message


class Adding(Protocol):
    """The generation, as an addition knows it."""

    id: str
    ended: bool

    def end_turn(self) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """What its hooks held back. Raises what they fail with."""

    def put(self, held: Sequence[Delta], messages: Sequence[Message]) -> Sequence[Prompt]:
        """Append both, and run on. Raises why that cannot be stored."""

    def fail(self, error: HeadraceError) -> None: ...


class Addition:
    """``told``: the ``prompt`` events, or why there are none."""

    def __init__(self, generation: Adding, messages: Sequence[Message]) -> None:
        self.told: asyncio.Future[Sequence[Prompt]] = asyncio.get_running_loop().create_future()
        self._generation = generation
        self._messages = messages

    def ask_hooks(self) -> Awaitable[None] | None:
        """Have them give back what they hold, now or when awaited, and put the messages behind it."""
        if self._generation.ended:
            self._refuse(over(self._generation.id))
            return None
        try:
            out = self._generation.end_turn()
        except HeadraceError as error:
            self._break(error)
            return None
        if type(out) is not list and type(out) is not tuple and isawaitable(out):
            return self._put_later(out)
        self.put(out)
        return None

    def put(self, held: Sequence[Delta]) -> None:
        """Into the log, and tell it."""
        if self._generation.ended:
            self._refuse(over(self._generation.id))
            return
        try:
            prompts = self._generation.put(held, self._messages)
        except HeadraceError as error:
            self._break(error)
            return
        if not self.told.done():  # as it is if who waited for it has left
            self.told.set_result(prompts)

    async def _put_later(self, out: Awaitable[Sequence[Delta]]) -> None:
        try:
            held = await out
        except HeadraceError as error:
            self._break(error)
        else:
            self.put(held)

    def _break(self, error: HeadraceError) -> None:
        self._generation.fail(error)
        self._refuse(error)

    def _refuse(self, error: HeadraceError) -> None:
        if not self.told.done():
            self.told.set_exception(error)


def over(id: str) -> HeadraceError:
    """What is told who would add something to a generation that has its end."""
    return HeadraceError(Code.CONFLICT, f"{id} is over; send a new request with what it said.")
