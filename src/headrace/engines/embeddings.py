"""``/v1/embeddings`` as engines have it: what they are asked, what they say.

They are asked for base64: a quarter of the bytes, and what OpenAI's SDK asks for itself. Numbers are read as well.
"""

from __future__ import annotations

import binascii
from array import array
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.domain.embeddings import Embeddings, Input
from headrace.domain.errors import Code, HeadraceError

EMBEDDINGS = "/embeddings"


class _Entry(msgspec.Struct, gc=False):
    embedding: str | list[float]
    index: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct, gc=False):
    data: list[_Entry]
    usage: _Usage | None = None


def embedding_fields(model: str, inputs: Sequence[Input], **more: Any) -> dict[str, Any]:
    """What is asked; of ``more``, what is not None."""
    fields = {"model": model, "input": inputs, "encoding_format": "base64"}
    return fields | {name: value for name, value in more.items() if value is not None}


def embedded(body: bytes, count: int) -> Embeddings:
    """The answer for ``count`` inputs. Raises ``ENGINE_FAILED``."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        entries = sorted(answer.data, key=_index)
        vectors = [_vector(entry) for entry in entries]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise _unreadable(str(error)) from None
    if [entry.index for entry in entries] != list(range(count)):
        raise _unreadable(f"{len(vectors)} vectors for {count} inputs")
    return Embeddings(vectors, answer.usage.prompt_tokens if answer.usage else 0)


def _index(entry: _Entry) -> int:
    return entry.index


def _vector(entry: _Entry) -> array[float]:
    if not isinstance(entry.embedding, str):
        return array("d", entry.embedding)
    return array("f", b64decode(entry.embedding, validate=True))


def _unreadable(why: str) -> HeadraceError:
    return HeadraceError(Code.ENGINE_FAILED, f"The engine's embeddings are no answer: {why}")
