"""A prompt in mid-stream: a message added to a generation while it is answered.

The log shows it as a ``prompt`` event behind what was said before; the engine goes on with the new context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from inspect import isawaitable

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Prompt
from headrace.domain.request import Message, Request
from headrace.engines.base import unsupported
from headrace.flow import Flow
from headrace.streams.generation import Generation, over

MAX_PROMPTS = 256
"""Messages added to one generation."""


async def add_prompt(generation: Generation, message: Message) -> Sequence[Prompt]:
    """Add a message, as the hooks rewrite it, behind all that was said; returns its events. Prompts of one
    generation come in the order in which they were given. Raises ``UNSUPPORTED`` naming what does not allow
    it, ``CONFLICT`` after the end or above ``MAX_PROMPTS``, or what a hook refuses it with."""
    _check(generation)
    lock = generation.prompts
    if lock is None:
        lock = generation.prompts = asyncio.Lock()
    async with lock:
        rewritten = generation.rewrite(message)
        messages = await rewritten if isawaitable(rewritten) else rewritten
        if not messages:
            return ()
        _check_room(generation, len(messages))
        return await generation.add(messages)


def _check(generation: Generation) -> None:
    flow: Flow = generation.flow
    _check_request(generation.request)
    flow.model.check_prompt(generation.request)
    if generation.last_token_at and not generation.keep_raw:
        raise unsupported("model", "Its engine cannot go on from what it has said.")
    if generation.ended or generation.closing:
        raise over(generation.id)
    _check_room(generation, 1)


def _check_request(request: Request) -> None:
    """What no engine can do."""
    if request.kind == "completion" and len(request.prompts) > 1:
        raise unsupported("prompt", "A prompt is added to a request that has one prompt.")
    if request.sampling.n > 1:
        raise unsupported("n", "A prompt is added to a request that has one choice.")
    if request.echo:
        raise unsupported("echo", "A request with echo takes no further prompt.")


def _check_room(generation: Generation, count: int) -> None:
    if len(generation.turns) + count > MAX_PROMPTS:
        text = f"{generation.id} has {len(generation.turns)} prompts; more than {MAX_PROMPTS} are too many."
        raise HeadraceError(Code.CONFLICT, text)
