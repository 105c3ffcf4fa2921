"""The ``Hook`` protocol: user code around a generation.

Hooks run in the order configured, before an event has its ``seq``: what a hook drops never existed.
One context a generation is shared by its hooks. Every method may be ``async def`` as well; a hook
without awaits costs no task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Error, Finish
from headrace.domain.request import Caller, Message, Request


class HookContext(msgspec.Struct):
    """Shared by the hooks of one generation. ``state`` is theirs; keys are by convention the hook's name.
    ``running``: the request is on its way to the engine; messages that come now come in mid-stream.
    ``replaying`` is True while a restarted server rebuilds hooks: no outside effects then.
    ``bypassed``: the chain's own, hooks that failed and are skipped from now on."""

    generation: str
    request: Request
    caller: Caller
    state: dict[str, Any] = msgspec.field(default_factory=dict)
    running: bool = False
    replaying: bool = False
    bypassed: set[Any] | None = None


class Hook(Protocol):
    """All are optional to override in the base class :class:`headrace.streams.hooks.BaseHook`."""

    def on_start(self, context: HookContext) -> None | Awaitable[None]:
        """Before the generation is admitted to the queue. Raise ``HOOK_REFUSED`` to refuse it."""

    def on_token(
        self, context: HookContext, deltas: Sequence[Delta]
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """Change, drop or split. Text held back here must come out later or in ``on_finish``."""

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        """Messages on their way to the engine: a chat request's own, after ``on_start``; later each that is added
        in mid-stream. Returns those that the engine is to get instead; new and changed ones are ``prompt``
        events. Of a request they must be some; of an addition they may be none. Raise ``HOOK_REFUSED`` to
        refuse the request, or the addition alone. Not called again after a restart."""

    def on_turn_end(self, context: HookContext) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """Messages are put behind what was said so far, and it will not be gone on with. Returns what was held
        back; what is still held after this comes out behind the messages."""

    def on_finish(
        self, context: HookContext, end: Finish | Error
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """The generation ends with ``end`` (``seq`` 0: not yet assigned). Returns what was held back."""
