"""``/v1/embeddings``: vectors of texts. ``openai.types.create_embedding_response``;
https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from headrace.domain.embeddings import EmbeddingRequest, Input, float32
from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.asking import caller_of, check_takes_json
from headrace.protocols.body import Body, refuse, require_json_body
from headrace.protocols.call import JSON, Call
from headrace.protocols.embedding_port import Embedded, Embedder
from headrace.protocols.openai_request import Identity, Name, Priority, TokenId
from headrace.protocols.router import Route
from headrace.protocols.tracing import Attributes, worked

MAX_INPUTS = 2048
"""Of one request, as OpenAI has it."""
ENCODED_AT_ONCE = 16
"""Vectors that are made JSON before others have their turn: a millisecond's worth."""

Format = Literal["float", "base64"]


class EmbeddingsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/embeddings``. ``priority``: as vLLM has it."""

    model: Name
    input: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    encoding_format: Format | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    user: Identity | None = None
    priority: Priority | None = None


class Embedding(msgspec.Struct, frozen=True, gc=False):
    """``embedding``: its numbers, or with ``base64`` those as float32, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, gc=False):
    """The answer of ``POST /v1/embeddings``."""

    object: Literal["list"]
    data: Sequence[Embedding]
    model: str
    usage: EmbeddingUsage


_body = Body(EmbeddingsBody)
_encode = msgspec.json.Encoder().encode


class EmbeddingEndpoint:
    def __init__(self, embedder: Embedder | None) -> None:
        self._known = embedder

    def routes(self) -> Sequence[Route]:
        return (Route("POST", "/v1/embeddings", self.embeddings),)

    async def embeddings(self, call: Call, _: str) -> None:
        asked = decode_embeddings(require_json_body(call))
        check_takes_json(call)
        if self._known is None:
            raise HeadraceError(Code.NOT_FOUND, "This server gives no embeddings.")
        model = asked.request.model
        work = self._known.embed(asked.request, caller_of(call))
        learnt = partial(_learnt, model)
        embedded = await worked(call.span, f"embeddings {model}", work, learnt)
        call.reservation = embedded.reservation
        call.respond(200, [JSON], await rendered(asked, embedded))


class EmbeddingsAsked(NamedTuple):
    request: EmbeddingRequest
    format: Format


def decode_embeddings(data: bytes) -> EmbeddingsAsked:
    """Raises ``INVALID_REQUEST`` naming the field, or the input."""
    body = _body.decode_closed(data)
    inputs = _inputs(body.input)
    request = EmbeddingRequest(body.model, inputs, body.dimensions, body.user, body.priority or 0)
    return EmbeddingsAsked(request, body.encoding_format or "float")


async def rendered(asked: EmbeddingsAsked, embedded: Embedded) -> bytes:
    """The answer's JSON."""
    found = embedded.embeddings
    usage = EmbeddingUsage(found.prompt_tokens, found.prompt_tokens)
    data = await _data(found.vectors, asked.format)
    return _encode(EmbeddingList("list", data, embedded.model, usage))


def _learnt(model: str, embedded: Embedded) -> Attributes:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/"""
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": embedded.embeddings.prompt_tokens,
    }


async def _data(vectors: Sequence[Any], format: Format) -> Any:
    """The list of them as JSON. Many are a lot to encode, which is done in pieces: others have their turns."""
    pieces = []
    for index, vector in enumerate(vectors):
        if index and not index % ENCODED_AT_ONCE:
            await asyncio.sleep(0)
        numbers = vector.tolist() if format == "float" else b64encode(float32(vector)).decode()
        pieces.append(_encode(Embedding("embedding", index, numbers)))
    return msgspec.Raw(b"[%b]" % b",".join(pieces))


def _inputs(value: str | list[Any]) -> tuple[Input, ...]:
    """Raises ``INVALID_REQUEST`` naming the input."""
    if isinstance(value, str):
        value = [value]
    kinds = {type(item) for item in value}
    if len(kinds) > 1:
        raise refuse("input", "mixes texts and token ids; it is one kind of them")
    if kinds == {int}:
        return (tuple(value),)
    if len(value) > MAX_INPUTS:
        raise refuse("input", f"has {len(value)} inputs; {MAX_INPUTS} is the most")
    if "" in value or [] in value:
        at = next(index for index, item in enumerate(value) if not item)
        raise refuse(f"input[{at}]" if len(value) > 1 else "input", "is empty")
    return tuple(value) if kinds == {str} else tuple(tuple(tokens) for tokens in value)
