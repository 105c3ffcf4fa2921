"""A prompt in mid-stream: a message added to a generation while it is answered.

The log shows it as a ``prompt`` event behind what was said before; the engine goes on with the new context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from inspect import isawaitable

from headrace.domain.delta import Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event, Prompt, Token
from headrace.domain.request import Message, Request
from headrace.engines.base import unsupported
from headrace.flow import Flow
from headrace.streams.addition import over
from headrace.streams.generation import Generation

MAX_PROMPTS = 256
"""Messages added to one generation."""


async def rewrite_request(generation: Generation) -> None:
    """Let hooks rewrite a chat request's messages before it is queued; what is added meanwhile waits. Raises what
    they refuse it with."""
    if generation.request.kind != "chat":
        return
    lock = generation.prompts = asyncio.Lock()
    async with lock:
        sent = generation.request.messages
        rewritten = generation.rewrite(sent, running=False)
        messages = await rewritten if isawaitable(rewritten) else rewritten
        if not messages:
            raise HeadraceError(Code.HOOK_FAILED, "A hook left nothing of the request's messages.")
        if messages is not sent and not generation.ended:
            generation.begin_with(messages)


async def add_prompt(generation: Generation, message: Message) -> Sequence[Prompt]:
    """Add a message, as the hooks rewrite it, behind all that was said; returns its events. Prompts of one
    generation come in the order in which they were given. Raises ``UNSUPPORTED`` naming what does not allow
    it, ``CONFLICT`` after the end or above ``MAX_PROMPTS``, or what a hook refuses it with."""
    _check(generation)
    lock = generation.prompts
    if lock is None:
        lock = generation.prompts = asyncio.Lock()
    async with lock:
        rewritten = generation.rewrite((message,), running=True)
        messages = await rewritten if isawaitable(rewritten) else rewritten
        if not messages:
            return ()
        _check_room(generation, len(messages))
        said = await _said(generation) if _is_unknown(generation) else None
        return await generation.add(messages, said)


def _check(generation: Generation) -> None:
    flow: Flow = generation.flow
    _check_request(generation.request)
    flow.model.check_prompt(generation.request)
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


def _is_unknown(generation: Generation) -> bool:
    """Whether its engine has said something that was not kept: it cannot go on from there by itself."""
    return bool(generation.last_token_at) and generation.said is None


async def _said(generation: Generation) -> Prefix:
    """What was said so far, from the log. Nothing of it is missing when this returns."""
    reader = _SoFar()
    hold = generation.log.attach(reader)
    try:
        while reader.seq < generation.log.visible_seq:
            reader.news.clear()
            await reader.news.wait()
            if reader.error is not None:
                raise reader.error
    finally:
        hold.close()
    return Prefix("".join(reader.texts), (), len(reader.texts))


class _SoFar:
    """The reader behind :func:`_said`: the answer's text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.seq = 0
        self.error: HeadraceError | None = None
        self.news = asyncio.Event()

    def events(self, events: Sequence[Event]) -> bool:
        self.texts += [e.text for e in events if isinstance(e, Token) and not e.reasoning]
        self.seq = events[-1].seq
        self.news.set()
        return True

    def lost(self, error: HeadraceError) -> None:
        self.error = error
        self.news.set()


def _check_room(generation: Generation, count: int) -> None:
    if len(generation.turns) + count > MAX_PROMPTS:
        text = f"{generation.id} has {len(generation.turns)} prompts; more than {MAX_PROMPTS} are too many."
        raise HeadraceError(Code.CONFLICT, text)
