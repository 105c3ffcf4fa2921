"""``/v1/responses``: a response is a generation seen as OpenAI's Responses API sees it.

What it says is read from the generation's log, while it runs and after; a background response only has no
client that it would miss. https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.request import CONTINUE, Caller
from headrace.protocols.accept import require_json
from headrace.protocols.asking import (
    caller_of,
    chosen_form,
    cursor,
    find,
    last_event_id,
    stream_events,
    take_request,
)
from headrace.protocols.body import Unknown, check_json_body, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.errors import from_event, named
from headrace.protocols.formats import ENCODERS, RESPONSES
from headrace.protocols.listing import asked_limit, asked_order, page
from headrace.protocols.openai_request import renamed
from headrace.protocols.output import Output, OutputReader
from headrace.protocols.pending import Pending
from headrace.protocols.port import Generation, Service
from headrace.protocols.reading import read_on
from headrace.protocols.responses_object import (
    TERMS,
    ResponseObject,
    ResponseStatus,
    conversation,
    input_items,
    items_at_end,
    response_id,
    response_object,
    status_at_end,
    terms_of,
)
from headrace.protocols.responses_request import (
    ENGINE_NAMES,
    Earlier,
    ResponsesBody,
    decode_responses,
    response_request,
)
from headrace.protocols.responses_stream import STARTING_AFTER
from headrace.protocols.router import Route
from headrace.protocols.stream import ClientStream, OpenStreams
from headrace.protocols.submitting import Asked, submit

MAX_LISTED = 100
Resumed = Callable[[Call], Pending]


class InputItems(msgspec.Struct, frozen=True, gc=False):
    """A page of the items that a response was asked with."""

    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class Deleted(msgspec.Struct, frozen=True, gc=False):
    id: str
    object: str = "response"
    deleted: bool = True


class InputTokens(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int
    object: str = "response.input_tokens"


class Responses:
    """``resumed``: answers a ``POST`` that only reads on."""

    def __init__(self, service: Service, streams: OpenStreams, resumed: Resumed) -> None:
        self._service = service
        self._streams = streams
        self._resumed = resumed

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/v1/responses", self.create),
            Route("POST", "/v1/responses/input_tokens", self.count),
            Route("GET", "/v1/responses/{id}/input_items", self.input_items),
            Route("POST", "/v1/responses/{id}/cancel", self.cancel),
            Route("GET", "/v1/responses/{id}", self.read, by_token=True),
            Route("DELETE", "/v1/responses/{id}", self.delete),
        )

    def create(self, call: Call, _: str) -> Pending | None:
        """Begin a generation; only one that follows another waits for anything."""
        if call.terms.resumes:
            return self._resumed(call)
        check_json_body(call)
        body, unknown = decode_responses(call.exchange.body)
        if body.stream:
            chosen_form(call)
        else:
            require_json(call.header(b"accept"))
        if body.previous_response_id is None:
            return self._begin(call, body, unknown, Earlier())
        return self._follow(call, body, unknown, body.previous_response_id)

    async def count(self, call: Call, _: str) -> None:
        """Tokens of the prompt that a response would have."""
        body, unknown = decode_responses(require_json_body(call))
        require_json(call.header(b"accept"))
        previous = body.previous_response_id
        earlier = Earlier() if previous is None else await self._earlier(call, previous)
        request, _terms = response_request(body, unknown, earlier)
        take_request(call, self._service, request.model)
        try:
            count = await self._service.count_prompt(request)
        except HeadraceError as error:
            raise renamed(error, ENGINE_NAMES) from None
        call.json(InputTokens(count))

    async def _follow(
        self, call: Call, body: ResponsesBody, unknown: Unknown | None, previous: str
    ) -> None:
        """Begin one that goes on from an earlier response."""
        waiting = self._begin(call, body, unknown, await self._earlier(call, previous))
        if waiting is not None:
            await waiting

    async def _earlier(self, call: Call, previous: str) -> Earlier:
        """What a previous response brings in. Raises ``INVALID_REQUEST`` and ``CONFLICT``."""
        try:
            earlier = await self._find(call, previous)
        except HeadraceError as error:
            if error.code is not Code.GENERATION_NOT_FOUND:
                raise
            raise refuse(
                "previous_response_id", f"names no response here: {previous[:80]!r}"
            ) from None
        if earlier.state not in ("finished", "failed"):
            raise refuse(
                "previous_response_id", "names a response that is not complete yet", Code.CONFLICT
            )
        read = await whole(earlier)
        if not isinstance(read.end, Finish):
            raise refuse("previous_response_id", "names a response that failed or was cancelled")
        return Earlier(conversation(read))

    def _begin(
        self, call: Call, body: ResponsesBody, unknown: Unknown | None, earlier: Earlier
    ) -> Pending | None:
        request, terms = response_request(body, unknown, earlier)
        options: dict[str, Any] = stream_events(call) or {}
        options[TERMS] = msgspec.to_builtins(terms)
        caller = caller_of(call, body.session_id)
        if terms.background:
            caller = outliving(caller)
        asked = Asked(request, caller, RESPONSES, options, ENGINE_NAMES)
        return submit(self._service, asked, partial(self._answer, call))

    def _answer(self, call: Call, generation: Generation) -> None:
        call.reservation = generation.reservation
        if generation.request.stream:
            framing = FRAMINGS[call.terms.form or chosen_form(call)]
            encoder = ENCODERS[RESPONSES](generation, generation.wire_options, framing)
            ClientStream(call, generation, encoder, framing, self._streams, reading=False).attach()
        elif terms_of(generation).background:
            call.json(self._now(generation), headers=named(generation))
        else:
            _Answer(call, generation).attach()

    async def read(self, call: Call, any_id: str) -> None:
        """``starting_after`` is a number of a message, ``Last-Event-ID`` one of the log's; both may be there: an
        ``EventSource`` comes back to the URL it began with."""
        query = call.query()
        stream = query.get("stream", "").lower()
        if stream not in ("", "false", "0", "true", "1"):
            raise refuse("stream", "must be true or false")
        options: dict[str, Any] = {**(stream_events(call) or {})}
        if "starting_after" in query:
            options[STARTING_AFTER] = cursor(query["starting_after"], "starting_after")
        after = last_event_id(call) or 0
        generation = await self._find(call, any_id)
        if stream in ("true", "1"):
            framing = FRAMINGS[chosen_form(call)]
            options = generation.wire_options | options
            read_on(call, generation, RESPONSES, options, framing, self._streams, after)
            return
        if call.terms.read_token is not None:
            raise HeadraceError(Code.INVALID_API_KEY, "A token is for `stream=true` only.")
        require_json(call.header(b"accept"))
        call.json(await self._known(generation), headers=named(generation))

    async def cancel(self, call: Call, any_id: str) -> None:
        generation = await self._find(call, any_id)
        if not terms_of(generation).background:
            raise HeadraceError(
                Code.INVALID_REQUEST,
                "Only a response with `background`: true is cancelled here; end another by leaving it"
                f" or by POST /v1/generations/{generation.id}/cancel.",
            )
        self._service.cancel(generation)
        call.json(await self._known(generation), headers=named(generation))

    async def delete(self, call: Call, any_id: str) -> None:
        generation = await self._find(call, any_id)
        await self._service.delete(generation)
        call.json(Deleted(response_id(generation)), headers=named(generation))

    async def input_items(self, call: Call, any_id: str) -> None:
        query = call.query()
        limit = asked_limit(query, MAX_LISTED)
        order = asked_order(query)
        generation = await self._find(call, any_id)
        items = input_items(generation)
        if order == "desc":
            items.reverse()
        after = query.get("after")
        if after is not None:
            places = [at for at, item in enumerate(items) if item["id"] == after]
            if not places:
                raise refuse("after", "names no item of this response")
            items = items[places[0] + 1 :]
        listed = InputItems(*page(items, [item["id"] for item in items], limit))
        call.json(listed, headers=named(generation))

    async def _find(self, call: Call, any_id: str) -> Generation:
        """A response of this tenant's that may be found again. Raises ``GENERATION_NOT_FOUND``."""
        generation = await find(call, self._service, any_id)
        if generation.wire != RESPONSES or not generation.request.keep:
            raise HeadraceError(
                Code.GENERATION_NOT_FOUND, f"There is no response {any_id[:80]!r} of yours here."
            )
        return generation

    async def _known(self, generation: Generation) -> ResponseObject:
        if generation.state not in ("finished", "failed"):
            return self._now(generation)
        read = await whole(generation)
        return read.response()

    @staticmethod
    def _now(generation: Generation) -> ResponseObject:
        """One that is not over."""
        status: ResponseStatus = "queued" if generation.state == "queued" else "in_progress"
        return response_object(generation, Output(generation), status, None)


def outliving(caller: Caller) -> Caller:
    """The caller of a response that has no client."""
    return msgspec.structs.replace(caller, leaving=CONTINUE)


class Read(OutputReader):
    """The reader of a whole log as a response."""

    def response(self) -> ResponseObject:
        """Of a log that has ended."""
        assert self.end is not None
        status = status_at_end(self.end)
        for _ in self.output.end(items_at_end(status)):
            pass
        return response_object(self.generation, self.output, status, self.end)


class _Answer(Read):
    """The reader behind a whole answer."""

    def __init__(self, call: Call, generation: Generation) -> None:
        super().__init__(generation)
        self._call = call

    def attach(self) -> None:
        self._call.exchange.on_gone = self.close
        self.begin(client=True)

    def over(self) -> None:
        call, generation = self._call, self.generation
        try:
            if self.error is not None:
                call.fail(self.error, named(generation))
            elif isinstance(self.end, Error):
                call.fail(from_event(self.end), named(generation))
            else:
                call.json(self.response(), headers=named(generation))
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            call.crash()


class _Waited(Read):
    def __init__(self, generation: Generation) -> None:
        super().__init__(generation)
        self.done = asyncio.Event()

    def over(self) -> None:
        self.done.set()


async def whole(generation: Generation, *, client: bool = False) -> Read:
    """The whole log of a generation, once it has ended. Raises why it cannot be read. ``client``: it may be cancelled
    if nobody else reads it and this is given up."""
    read = _Waited(generation)
    read.begin(client=client)
    try:
        await read.done.wait()
    finally:
        read.close()
    if read.error is not None:
        raise read.error
    return read
