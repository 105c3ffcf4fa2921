"""The rows of jobs: requests like any other, of the lowest priority, whose answers are read from their logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Finish, Usage
from headrace.domain.job import RowAnswer, RowAsked
from headrace.domain.request import Caller, Leaving, Once, Request, Urgency
from headrace.protocols.body import refuse
from headrace.protocols.call import request_ids
from headrace.protocols.collector import folded
from headrace.protocols.embedding_port import Embedder
from headrace.protocols.embeddings import decode_embeddings, rendered
from headrace.protocols.encoder import encode_json
from headrace.protocols.errors import error_body, from_event
from headrace.protocols.formats import RESPONSES
from headrace.protocols.generate import CHAT, COMPLETION, Form
from headrace.protocols.port import Generation, Service
from headrace.protocols.responses import whole
from headrace.protocols.responses_object import TERMS
from headrace.protocols.responses_request import (
    ENGINE_NAMES,
    Earlier,
    decode_responses,
    response_request,
)
from headrace.protocols.submitting import Asked, submitted

AWAY = Leaving(900.0)
"""How long a row's generation outlives its job's process, and is kept after its end: until the answer is in a file,
which is at once but for a crash in between. Beyond, it is computed again."""
URGENCY = Urgency(level="batch", spare=True)
EMBEDDINGS = "/v1/embeddings"
EMBEDDED_AT_ONCE = 128
"""Rows of a model that gives embeddings: more than run together, so that the next run need not wait for any."""
BEHIND = 100
"""Steps of priority behind others' requests for embeddings: more would not count."""
FORMS = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION}


class Rows:
    """Has rows answered by a service."""

    def __init__(self, service: Service, embedder: Embedder | None = None) -> None:
        self._service = service
        self._embedder = embedder
        self._new_id = request_ids()

    def slots(self, model: str, endpoint: str) -> tuple[str, int]:
        if endpoint == EMBEDDINGS:
            return f"{self._service.model(model).name} {endpoint}", EMBEDDED_AT_ONCE
        return self._service.rows_at_once(model)

    async def caught_up(self) -> None:
        await self._service.caught_up()

    async def ask(self, asked: RowAsked) -> RowAnswer:
        request_id = self._new_id()
        if asked.endpoint == EMBEDDINGS:
            return await self._embedded(asked, request_id)
        row = _decoded(asked)
        if row.request.stream:
            raise refuse("stream", "is not possible in a batch", Code.UNSUPPORTED)
        request = msgspec.structs.replace(row.request, keep=False)
        caller = _caller(asked, request_id)
        generation = await submitted(
            self._service, Asked(request, caller, row.wire, row.options, row.names)
        )
        body, usage = await row.read(generation)
        return RowAnswer(200, request_id, body, usage)

    async def _embedded(self, asked: RowAsked, request_id: str) -> RowAnswer:
        """There is no log of it: after a crash what was not written is computed again."""
        if self._embedder is None:
            raise HeadraceError(Code.NOT_FOUND, "This server gives no embeddings.")
        row = decode_embeddings(asked.body)
        priority = max(row.request.priority, 0) + BEHIND
        request = msgspec.structs.replace(row.request, priority=priority)
        embedded = await self._embedder.embed(request, _caller(asked, request_id))
        body = await rendered(row, embedded)
        return RowAnswer(200, request_id, body, Usage(embedded.embeddings.prompt_tokens))

    def refusal(self, error: HeadraceError) -> RowAnswer:
        return RowAnswer(error.meaning.http, self._new_id(), error_body(error))

    def abort(self, tenant: str, group: str) -> None:
        self._service.abort(group, tenant)


Reading = Callable[[Generation], Any]


class _Decoded(NamedTuple):
    """``read``: waits for the end of the log, and gives the answer's body and usage. Raises the error that it ended
    with."""

    request: Request
    wire: str
    options: dict[str, Any]
    names: Any
    read: Reading


def _decoded(asked: RowAsked) -> _Decoded:
    """Raises as the decoders do."""
    form = FORMS.get(asked.endpoint)
    if form is not None:
        request, options, _ = form.decode(asked.body)
        return _Decoded(request, form.wire, options, {}, _Folded(form).read)
    body, unknown = decode_responses(asked.body)
    if body.previous_response_id is not None:
        raise refuse("previous_response_id", "is not possible in a batch", Code.UNSUPPORTED)
    if body.background:
        raise refuse("background", "is not possible in a batch", Code.UNSUPPORTED)
    request, terms = response_request(body, unknown, Earlier())
    options = {TERMS: msgspec.to_builtins(terms)}
    return _Decoded(request, RESPONSES, options, ENGINE_NAMES, _read_response)


def _caller(asked: RowAsked, request_id: str) -> Caller:
    return Caller(
        asked.tenant,
        request_id,
        abort_token=asked.group,
        leaving=AWAY,
        once=Once(asked.key),
        key_id=asked.key_id,
        urgency=URGENCY,
    )


class _Folded(NamedTuple):
    form: Form

    async def read(self, generation: Generation) -> tuple[bytes, Usage]:
        fold = await folded(generation, client=True)
        usage = fold.finish().usage
        return self.form.render(generation, fold), usage


async def _read_response(generation: Generation) -> tuple[bytes, Usage]:
    read = await whole(generation, client=True)
    if isinstance(read.end, Error):
        raise from_event(read.end)
    assert isinstance(read.end, Finish)
    return encode_json(read.response()), read.end.usage
