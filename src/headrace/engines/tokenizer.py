"""``/tokenize`` and ``/detokenize`` as llama.cpp and vLLM have them: what they are asked, what they say.

llama.cpp calls a text ``content``, vLLM ``prompt``; by that they are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tokens import Tokens

DETOKENIZE = "/detokenize"


class _Piece(msgspec.Struct, gc=False):
    id: int
    piece: str | tuple[int, ...]


class _Tokenized(msgspec.Struct, gc=False):
    tokens: list[int | _Piece]
    token_strs: tuple[str, ...] | None = None


class _Text(msgspec.Struct, gc=False):
    content: str | None = None
    prompt: str | None = None


def tokenize_fields(field: str, text: str, special: bool, pieces: bool) -> dict[str, Any]:
    """What is asked. ``special``: with the tokens that every prompt begins with. ``pieces``: with each token's
    text."""
    if field == "content":
        return {"content": text, "add_special": special, "with_pieces": pieces}
    return {"prompt": text, "add_special_tokens": special, "return_token_strs": pieces}


def tokenized(body: bytes) -> Tokens:
    """The answer. Raises ``ENGINE_FAILED``."""
    try:
        found = msgspec.json.decode(body, type=_Tokenized)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    ids = tuple(one if isinstance(one, int) else one.id for one in found.tokens)
    pieces: Sequence[str | tuple[int, ...]] = found.token_strs or tuple(
        one.piece for one in found.tokens if isinstance(one, _Piece)
    )
    return Tokens(ids, tuple(pieces) if len(pieces) == len(ids) else None)


def detokenized(body: bytes) -> str:
    """The text of ``{"tokens": ids}``. Raises ``ENGINE_FAILED``."""
    try:
        found = msgspec.json.decode(body, type=_Text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    return found.content or found.prompt or ""


def _unreadable(error: Exception) -> HeadraceError:
    return HeadraceError(
        Code.ENGINE_FAILED, f"The engine's tokenizer said what is no answer: {error}"
    )
