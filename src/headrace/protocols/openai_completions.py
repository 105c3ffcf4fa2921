"""OpenAI legacy completions: stream and whole answer have one shape. ``openai.types.completion``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from headrace.domain.event import FinishReason, Token, TokenLogprob
from headrace.domain.ids import find_ulid
from headrace.protocols.encoder import Framing, Writer, encode_json
from headrace.protocols.fold import Fold
from headrace.protocols.openai_chunks import ChunkEncoder
from headrace.protocols.openai_usage import CompletionUsage, completion_usage
from headrace.protocols.port import Generation


class TextLogprobs(msgspec.Struct, frozen=True, gc=False):
    """One entry a token in each list. ``text_offset``: characters from the choice's beginning. An echoed
    prompt's first token has no probability: ``null``."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(msgspec.Struct, frozen=True, gc=False):
    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class TextCompletion(msgspec.Struct, frozen=True, gc=False):
    """The answer of ``POST /v1/completions`` without a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage


def text_completion(generation: Generation, fold: Fold) -> bytes:
    """The whole answer. Raises the error that the log ended with."""
    end = fold.finish()
    asked = generation.request.sampling.logprobs
    choices = [
        TextChoice(
            choice.text,
            index,
            None if asked is None else _logprobs(choice.logprobs, asked, 0),
            end.reason(index),
        )
        for index, choice in enumerate(fold.choices(generation.request.choices))
    ]
    answer = TextCompletion(
        completion_id(generation),
        "text_completion",
        int(generation.created),
        generation.model,
        choices,
        completion_usage(end.usage),
    )
    return encode_json(answer)


def completion_id(generation: Generation) -> str:
    """``cmpl-`` and the generation's ULID."""
    return f"cmpl-{find_ulid(generation.id)}"


class CompletionEncoder(ChunkEncoder):
    """Chunks of one stream; the options are those of :class:`ChunkEncoder`."""

    __slots__ = ("_asked", "_offsets")

    def __init__(self, generation: Generation, options: dict[str, Any], framing: Framing) -> None:
        name, kind = completion_id(generation), b"text_completion"
        super().__init__(generation, options, framing, id=name, kind=kind)
        self._asked = generation.request.sampling.logprobs or 0
        self._offsets = [0] * self._choices

    def _token(self, event: Token) -> bytes:
        if event.logprobs is not None:
            return self._with_logprobs(event, event.logprobs)
        writer = self.writers.get(event.index) or self._new_writer(event.index)
        return writer((event.seq, encode_json(event.text)))

    def _new_writer(self, index: int) -> Writer:
        before = b'%b{"text":' % self._head
        after = b',"index":%d,"logprobs":null,"finish_reason":null}]%b' % (index, self._usage)
        writer = self._framing.writer(before, after)
        self.writers[index] = writer
        return writer

    def _with_logprobs(self, event: Token, entries: Sequence[TokenLogprob]) -> bytes:
        offset = self._offsets[event.index]
        self._offsets[event.index] = offset + sum(len(entry.token) for entry in entries)
        logprobs = encode_json(_logprobs(entries, self._asked, offset))
        chunk = self._chunk(encode_json(event.text), event.index, logprobs, b"null")
        return self._framing.message(event.seq, chunk)

    def _closing(self, index: int, reason: bytes) -> bytes:
        return self._framing.part(self._chunk(b'""', index, b"null", reason))

    def _chunk(self, text: bytes, index: int, logprobs: bytes, reason: bytes) -> bytes:
        return b'%b{"text":%b,"index":%d,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head,
            text,
            index,
            logprobs,
            reason,
            self._usage,
        )


def _logprobs(entries: Sequence[TokenLogprob], asked: int, offset: int) -> TextLogprobs:
    """``asked``: alternatives a token; 0 leaves ``top_logprobs`` null, as OpenAI does."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.token)
    return TextLogprobs(
        [entry.token for entry in entries],
        [entry.logprob for entry in entries],
        [_top(entry) for entry in entries] if asked else None,
        offsets,
    )


def _top(entry: TokenLogprob) -> dict[str, float] | None:
    if entry.logprob is None:
        return None
    return {token: logprob for token, logprob, _ in entry.top}
