"""The native endpoints: one prompt in, one answer out; many in one array; one as a stream of events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason
from headrace.domain.request import Caller, Once, Request, Sampling
from headrace.protocols.asking import caller_of, check_takes_json
from headrace.protocols.batch import MAX_BATCH, Batch
from headrace.protocols.body import Body, Unknown, invalid_json, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.encoder import encode_json
from headrace.protocols.errors import ErrorBody, error_of
from headrace.protocols.fold import Fold
from headrace.protocols.formats import NATIVE
from headrace.protocols.generate import Form, Generate
from headrace.protocols.openai_request import Asked as Decoded
from headrace.protocols.openai_request import (
    Identity,
    MaxTokens,
    Name,
    Priority,
    Stop,
    Stops,
    plain_extra,
)
from headrace.protocols.port import Generation, Service
from headrace.protocols.router import Route
from headrace.protocols.submitting import Asked, submitted


class InferBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /v1/infer`` and each item of ``/v1/batch_infer``. Without ``model``: the first one served."""

    prompt: Annotated[str, Meta(min_length=1)]
    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stream: bool | None = None
    stop_words: Stops | Stop | None = None
    user_id: Identity | None = None
    session_id: Identity | None = None
    model: Name | None = None
    priority: Priority | None = None


class InferUsage(msgspec.Struct, frozen=True, gc=False):
    """``limited_by``: the limit of this server that ended the answer; only there where one did."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    limited_by: str | UnsetType = UNSET


class InferAnswer(msgspec.Struct, frozen=True, gc=False):
    """``tokens``: how many were generated. ``latency``: seconds from admission to the end of the log.
    ``error`` only where this item of a batch failed; ``finish_reason`` is null then."""

    text: str
    tokens: int
    latency: float
    usage: InferUsage
    finish_reason: FinishReason | None
    id: str | None
    error: ErrorBody | UnsetType = UNSET


_body = Body(InferBody)
_items = msgspec.json.Decoder(list[msgspec.Raw])


class Infer:
    """Shares the way from a decoded body to an answer with the OpenAI endpoints."""

    def __init__(self, service: Service, generate: Generate) -> None:
        self._service = service
        self._generate = generate

    def routes(self) -> Sequence[Route]:
        begin = self._generate.begin
        whole = Form(self._decode, NATIVE, infer_answer)
        stream = Form(self._decode_stream, NATIVE, infer_answer)
        return (
            Route("POST", "/v1/infer", partial(begin, whole)),
            Route("POST", "/v1/stream_infer", partial(begin, stream)),
            Route("POST", "/v1/batch_infer", self.batch),
        )

    async def batch(self, call: Call, _: str) -> None:
        """Every item is a generation of its own; the answer comes when the last one has ended."""
        items = _split(require_json_body(call))
        check_takes_json(call)
        caller = caller_of(call)
        batch = Batch(len(items), _item, call.json)
        call.exchange.on_gone = batch.close
        for position, item in enumerate(items):
            try:
                request, options, session_id = self._decode(item)
                if request.stream:
                    raise refuse("stream", "is not possible in a batch", Code.UNSUPPORTED)
                one = of_item(caller, position, session_id)
                asked = Asked(request, one, NATIVE, options)
                generation = await submitted(self._service, asked)
            except HeadraceError as error:
                batch.put(position, _failed(error, None, 0.0))
            else:
                call.reservation = generation.reservation
                batch.wait(position, generation)
        batch.submitted()

    def _decode(self, body: bytes) -> Decoded:
        return self._request(*_body.decode(body))

    def _decode_stream(self, body: bytes) -> Decoded:
        decoded, unknown = _body.decode(body)
        decoded.stream = True
        return self._request(decoded, unknown)

    def _request(self, body: InferBody, unknown: Unknown | None) -> Decoded:
        stop = body.stop_words
        request = Request(
            model=body.model or self._first_model(),
            kind="completion",
            prompts=(body.prompt,),
            sampling=Sampling(
                max_tokens=body.max_tokens,
                temperature=body.temperature,
                top_p=body.top_p,
                stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
            ),
            stream=body.stream is True,
            user=body.user_id,
            extra=plain_extra(unknown),
            priority=body.priority or 0,
        )
        return request, {}, body.session_id

    def _first_model(self) -> str:
        cards = self._service.models()
        if not cards:
            raise HeadraceError(Code.MODEL_NOT_FOUND, "This server serves no model.", param="model")
        return cards[0].name


def infer_answer(generation: Generation, fold: Fold) -> bytes:
    """The answer of ``/v1/infer``. Raises the error that the log ended with."""
    return encode_json(_answer(generation, fold))


def _answer(generation: Generation, fold: Fold) -> InferAnswer:
    end = fold.finish()
    usage = end.usage
    choices = fold.choices(generation.request.choices)
    return InferAnswer(
        "".join(choice.text for choice in choices),
        usage.completion_tokens,
        max(0.0, end.timestamp - generation.created),
        InferUsage(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.limited_by or UNSET,
        ),
        end.reasons[0],
        generation.id,
    )


def _item(generation: Generation, result: Fold | HeadraceError) -> InferAnswer:
    try:
        if isinstance(result, HeadraceError):
            raise result
        return _answer(generation, result)
    except HeadraceError as error:
        ended = result.end if isinstance(result, Fold) else None
        latency = ended.timestamp - generation.created if ended is not None else 0.0
        return _failed(error, generation.id, max(0.0, latency))


def _failed(error: HeadraceError, generation_id: str | None, latency: float) -> InferAnswer:
    return InferAnswer("", 0, latency, InferUsage(), None, generation_id, error_of(error))


def of_item(caller: Caller, position: int, session_id: str | None) -> Caller:
    """The caller of one item of a batch: an idempotency key is that of the whole batch."""
    caller = with_session(caller, session_id)
    if caller.once is None:
        return caller
    return msgspec.structs.replace(caller, once=Once(f"{caller.once.key}\t{position}"))


def with_session(caller: Caller, session_id: str | None) -> Caller:
    """The header's session counts for all items; without one, each item has its own."""
    if session_id is None or caller.session_id is not None:
        return caller
    return msgspec.structs.replace(caller, session_id=session_id)


def _split(body: bytes) -> list[bytes]:
    """The items of a bare array, undecoded. Raises ``INVALID_JSON`` and ``INVALID_REQUEST``."""
    try:
        items = _items.decode(body)
    except msgspec.ValidationError:
        raise HeadraceError(
            Code.INVALID_REQUEST, "The body must be an array of requests."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as complaint:
        raise invalid_json(complaint) from None
    if len(items) > MAX_BATCH:
        raise HeadraceError(
            Code.INVALID_REQUEST, f"The array has {len(items)} items; {MAX_BATCH} is the most."
        )
    return [bytes(item) for item in items]
