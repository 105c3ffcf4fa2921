"""``/v1/generations``: the state of a generation, its events from any cursor, prompts in mid-stream, its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headrace.domain.errors import Code
from headrace.domain.event import Error, Finish
from headrace.domain.request import Message
from headrace.protocols.asking import (
    MAX_TOKEN,
    chosen_form,
    cursor,
    find,
    last_event_id,
    stream_events,
    text_header,
)
from headrace.protocols.body import Body, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.collector import folded
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.errors import ErrorBody, error_object, named
from headrace.protocols.formats import NATIVE, chosen_format
from headrace.protocols.listing import asked_limit
from headrace.protocols.native import usage_payload
from headrace.protocols.port import Generation, Service, State
from headrace.protocols.reading import read_on
from headrace.protocols.router import Route
from headrace.protocols.stream import OpenStreams

MAX_LISTED = 100
MAX_CONTENT_BYTES = 64 * 1024
"""Of a message that is added to a running generation."""


class NativeUsage(msgspec.Struct, frozen=True, gc=False):
    """``limited_by``: the limit of this server that ended the answer; only there where one did."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    limited_by: str | UnsetType = UNSET


class GenerationState(msgspec.Struct, frozen=True, gc=False):
    """A generation from outside. ``created``: float Unix seconds. ``last_seq``: its newest event.
    ``usage`` and ``error`` come with the end; a list, which would have to read every log, lacks them."""

    id: str
    object: Literal["generation"]
    state: State
    created: float
    model: str
    last_seq: int
    session_id: str | None
    usage: NativeUsage | None | UnsetType = UNSET
    finish_reason: str | None | UnsetType = UNSET
    error: ErrorBody | None | UnsetType = UNSET


class GenerationList(msgspec.Struct, frozen=True, gc=False):
    object: Literal["list"]
    data: list[GenerationState]


class PromptBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message for a running generation."""

    role: Literal["system", "user"]
    content: Annotated[str, Meta(min_length=1)]


class AddedPrompt(msgspec.Struct, frozen=True, gc=False):
    """A message as it came into the log, at ``seq``."""

    seq: int
    role: str
    content: str


class AddedPrompts(msgspec.Struct, frozen=True, gc=False):
    """What a prompt became: usually itself; hooks may have made more of it, or less."""

    generation: str
    prompts: list[AddedPrompt]


class TokenGiven(msgspec.Struct, frozen=True, gc=False):
    """``token``: for ``?token=`` where this generation's events are read. ``expires_at``: Unix seconds."""

    token: str
    expires_at: int


class AbortBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    token: Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN)]


class Aborted(msgspec.Struct, frozen=True, gc=False):
    """How many running generations carried the token."""

    aborted: int


_abort_body = Body(AbortBody)
_prompt_body = Body(PromptBody)


def prompt_message(role: str, content: str, path: str = "") -> Message:
    """What a client wants to add to a running generation. ``path``: where it says so. Raises
    ``INVALID_REQUEST``, ``BODY_TOO_LARGE``."""
    if role not in ("system", "user"):
        raise refuse(f"{path}role", "must be system or user")
    if not content:
        raise refuse(f"{path}content", "is required")
    if len(content.encode()) > MAX_CONTENT_BYTES:
        said = f"is longer than {MAX_CONTENT_BYTES} bytes"
        raise refuse(f"{path}content", said, Code.BODY_TOO_LARGE)
    return Message("system" if role == "system" else "user", content)


class Generations:
    """The endpoints about generations that exist already."""

    def __init__(self, service: Service, streams: OpenStreams) -> None:
        self._service = service
        self._streams = streams

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET", "/v1/generations", self.list),
            Route("GET", "/v1/generations/{id}", self.state),
            Route("GET", "/v1/generations/{id}/events", self.events, by_token=True),
            Route("POST", "/v1/generations/{id}/prompts", self.prompt),
            Route("POST", "/v1/generations/{id}/token", self.token),
            Route("POST", "/v1/generations/{id}/cancel", self.cancel),
            Route("POST", "/v1/abort", self.abort),
        )

    async def state(self, call: Call, any_id: str) -> None:
        generation = await find(call, self._service, any_id)
        call.json(await _with_end(generation), headers=named(generation))

    async def list(self, call: Call, _: str) -> None:
        query = call.query()
        limit = asked_limit(query, MAX_LISTED)
        found = await self._service.list(call.tenant, query.get("session_id"), limit)
        call.json(GenerationList("list", [_outside(generation) for generation in found]))

    async def prompt(self, call: Call, any_id: str) -> None:
        body = _prompt_body.decode_closed(require_json_body(call))
        message = prompt_message(body.role, body.content)
        generation = await find(call, self._service, any_id)
        added = await self._service.prompt(generation, message)
        prompts = [AddedPrompt(event.seq, event.role, event.content) for event in added]
        call.json(AddedPrompts(generation.id, prompts), headers=named(generation))

    async def cancel(self, call: Call, any_id: str) -> None:
        generation = await find(call, self._service, any_id)
        self._service.cancel(generation)
        call.json(await _with_end(generation), headers=named(generation))

    def abort(self, call: Call, _: str) -> None:
        token = text_header(call, b"x-abort-token")
        if token is None or call.exchange.body:
            named = _abort_body.decode_closed(require_json_body(call)).token
            token = token or named
        call.json(Aborted(self._service.abort(token, call.tenant)))

    async def token(self, call: Call, any_id: str) -> None:
        """With it a page may read this generation that must not know the key."""
        generation = await find(call, self._service, any_id)
        given = TokenGiven(*self._service.read_token(generation))
        call.json(given, headers=[*named(generation), (b"cache-control", b"no-store")])

    async def events(self, call: Call, any_id: str) -> None:
        """``Last-Event-ID`` wins over ``after``: an ``EventSource`` comes back to the URL it began with."""
        query = call.query()
        after = last_event_id(call)
        if after is None:
            after = cursor(query.get("after") or "0", "after")
        await self._read(call, any_id, after, query.get("format", NATIVE))

    async def resume(self, call: Call, any_id: str, after: int) -> None:
        """Read on in the format that the generation was first answered in."""
        await self._read(call, any_id, after, None)

    async def _read(self, call: Call, any_id: str, after: int, asked: str | None) -> None:
        framing = FRAMINGS[chosen_form(call)]
        wanted = stream_events(call)
        generation = await find(call, self._service, any_id)
        wire, options = chosen_format(asked or generation.wire, generation)
        if wanted is not None:
            options = options | wanted
        read_on(call, generation, wire, options, framing, self._streams, after)


def _outside(generation: Generation) -> GenerationState:
    return GenerationState(
        generation.id,
        "generation",
        generation.state,
        generation.created,
        generation.model,
        generation.last_seq,
        generation.caller.session_id,
    )


async def _with_end(generation: Generation) -> GenerationState:
    """The state, and for an ended generation how it ended, which only its log says."""
    state = msgspec.structs.replace(
        _outside(generation), usage=None, finish_reason=None, error=None
    )
    if state.state not in ("finished", "failed"):
        return state
    fold = await folded(generation, client=False)
    match fold.end:
        case Finish(reasons=reasons, usage=usage):
            return msgspec.structs.replace(
                state, usage=NativeUsage(**usage_payload(usage)), finish_reason=reasons[0]
            )
        case Error() as error:
            return msgspec.structs.replace(state, error=error_object(error))
        case None:
            return state
