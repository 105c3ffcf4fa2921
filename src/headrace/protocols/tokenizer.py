"""``/tokenize`` and ``/detokenize``: what a text is to the model, as llama.cpp's server and vLLM tell it.

A text is ``content`` (llama.cpp) or ``prompt`` (vLLM). Where the two differ beside that, the name of the text
decides: vLLM adds the tokens that every prompt begins with unless it is told not to, llama.cpp only if it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.asking import check_takes_json, take_request
from headrace.protocols.body import Body, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.openai_request import Name, TokenId
from headrace.protocols.port import ModelCard, Service
from headrace.protocols.router import Route

MAX_TOKENS = 1 << 20
"""Tokens of one request."""


class TokenizeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /tokenize``: one of ``content`` and ``prompt``. Without ``model``: the first one served."""

    model: Name | None = None
    content: str | None = None
    prompt: str | None = None
    add_special: bool | None = None
    add_special_tokens: bool | None = None
    with_pieces: bool | None = None
    return_token_strs: bool | None = None
    # lacking
    messages: list[Any] | None = None
    parse_special: bool | None = None


class DetokenizeBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /detokenize``."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_TOKENS)]
    model: Name | None = None


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A token with its text, or its bytes where they are no UTF-8 alone."""

    id: int
    piece: str | tuple[int, ...]


class Tokenized(msgspec.Struct, frozen=True, gc=False):
    """``tokens``: ids, or with ``with_pieces`` objects. ``max_model_len``: tokens of the model's context."""

    tokens: Sequence[int | Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Detokenized(msgspec.Struct, frozen=True, gc=False):
    """The text under both names."""

    content: str
    prompt: str


_tokenize_body = Body(TokenizeBody)
_detokenize_body = Body(DetokenizeBody)


class Tokenizer:
    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/tokenize", self.tokenize),
            Route("POST", "/detokenize", self.detokenize),
        )

    async def tokenize(self, call: Call, _: str) -> None:
        body = _tokenize_body.decode_closed(require_json_body(call))
        check_takes_json(call)
        if body.messages is not None:
            raise refuse("messages", "are not taken here; send their text", Code.UNSUPPORTED)
        if body.parse_special is False:
            raise refuse("parse_special", "is always true here", Code.UNSUPPORTED)
        text = body.prompt if body.content is None else body.content
        if text is None:
            raise refuse("content", "or `prompt` is required")
        if body.content is not None and body.prompt is not None:
            raise refuse("prompt", "and `content` are both there; send one of them")
        pieces = bool(body.with_pieces or body.return_token_strs)
        card = self._card(body.model)
        take_request(call, self._service, card.name)
        found = await self._service.tokenize(card.name, text, special=_special(body), pieces=pieces)
        shown = found.pieces or ()
        tokens: Sequence[int | Piece] = found.ids
        if body.with_pieces:
            tokens = [Piece(id, piece) for id, piece in zip(found.ids, shown, strict=True)]
        strings = [_text(piece) for piece in shown] if body.return_token_strs else None
        call.json(Tokenized(tokens, len(found.ids), card.context, strings))

    async def detokenize(self, call: Call, _: str) -> None:
        body = _detokenize_body.decode_closed(require_json_body(call))
        check_takes_json(call)
        card = self._card(body.model)
        take_request(call, self._service, card.name)
        text = await self._service.detokenize(card.name, body.tokens)
        call.json(Detokenized(text, text))

    def _card(self, model: str | None) -> ModelCard:
        if model is not None:
            return self._service.model(model)
        cards = self._service.models()
        if not cards:
            raise HeadraceError(Code.MODEL_NOT_FOUND, "This server serves no model.", param="model")
        return cards[0]


def _special(body: TokenizeBody) -> bool:
    said = body.add_special if body.add_special is not None else body.add_special_tokens
    return body.content is None if said is None else said


def _text(piece: str | tuple[int, ...]) -> str:
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")
