"""OpenAI chat completions: the stream of chunks and the whole answer, both from the log's events.

https://platform.openai.com/docs/api-reference/chat-streaming and ``openai.types.chat``. Nullable fields
that OpenAI's schema requires are there as ``null``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from headrace.domain.event import Finish, FinishReason, Token, TokenLogprob, ToolCallDelta
from headrace.protocols.encoder import Framing, encode_json
from headrace.protocols.fold import Fold, FoldedChoice
from headrace.protocols.openai_chunks import ChunkEncoder
from headrace.protocols.openai_usage import USAGE, CompletionUsage, completion_usage
from headrace.protocols.port import Generation


class TopLogprob(msgspec.Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None


class ContentLogprob(msgspec.Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True, gc=False):
    content: list[ContentLogprob] | None
    refusal: list[ContentLogprob] | None = None


class FunctionCall(msgspec.Struct, frozen=True, gc=False):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct, frozen=True, gc=False):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    annotations: tuple[str, ...] = ()
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True, gc=False):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, gc=False):
    """The answer of ``POST /v1/chat/completions`` without a stream."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


_PLAIN = (
    (
        b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"choices":['
        b'{"index":0,"message":{"role":"assistant","content":%b,"refusal":null,"annotations":[]},'
        b'"logprobs":null,"finish_reason":%b}],"usage":'
    )
    + USAGE
    + b"}"
)
"""A :class:`ChatCompletion` with one choice that has only text: it saves nearly every answer the structs."""


def chat_completion(generation: Generation, fold: Fold) -> bytes:
    """The whole answer. Raises the error that the log ended with."""
    end = fold.end
    if type(end) is not Finish:
        end = fold.finish()
    usage = end.usage
    sampling = generation.request.sampling
    if (
        fold.more is not None
        or sampling.n != 1
        or sampling.logprobs is not None
        or usage.limited_by is not None
    ):
        return _full_completion(generation, fold, end)
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return _PLAIN % (
        generation.id[4:].encode(),  # after "gen_"
        generation.created,
        encode_json(generation.model),
        encode_json("".join(fold.texts)),
        encode_json(end.reasons[0]),
        prompt,
        completion,
        prompt + completion,
        usage.cached_tokens,
    )


def _full_completion(generation: Generation, fold: Fold, end: Finish) -> bytes:
    logprobs = generation.request.sampling.logprobs is not None
    choices = [
        _choice(index, choice, end.reason(index), logprobs)
        for index, choice in enumerate(fold.choices(generation.request.choices))
    ]
    answer = ChatCompletion(
        chat_id(generation),
        "chat.completion",
        int(generation.created),
        generation.model,
        choices,
        completion_usage(end.usage),
    )
    return encode_json(answer)


def chat_id(generation: Generation) -> str:
    """``chatcmpl-`` and the generation's ULID."""
    return "chatcmpl-" + generation.id[4:]  # after "gen_"


class ChatEncoder(ChunkEncoder):
    """Chunks of one stream; the options are those of :class:`ChunkEncoder`."""

    __slots__ = ("_writers",)

    def __init__(self, generation: Generation, options: dict[str, Any], framing: Framing) -> None:
        name, kind = chat_id(generation), b"chat.completion.chunk"
        super().__init__(generation, options, framing, id=name, kind=kind)

    def _token(self, event: Token) -> bytes:
        """A token that is its choice's first, or has more than text."""
        logprobs = b"null"
        if event.logprobs is not None:
            logprobs = encode_json(ChatLogprobs([_logprob(entry) for entry in event.logprobs]))
        chunk = self._chunk(event.index, _delta(event), logprobs, b"null")
        return self._role(event.index) + self._framing.message(event.seq, chunk)

    def _role(self, index: int) -> bytes:
        """The chunk that opens a choice, before its first other chunk; nothing after that."""
        if index in self.writers:
            return b""
        before = b'%b{"index":%d,"delta":{"content":' % (self._head, index)
        after = b'},"logprobs":null,"finish_reason":null}]' + self._usage
        self.writers[index] = self._framing.writer(before, after)
        opening = b'{"role":"assistant","content":null}'
        return self._framing.part(self._chunk(index, opening, b"null", b"null"))

    def _closing(self, index: int, reason: bytes) -> bytes:
        chunk = self._chunk(index, b"{}", b"null", reason)
        return self._role(index) + self._framing.part(chunk)

    def _chunk(self, index: int, delta: bytes, logprobs: bytes, reason: bytes) -> bytes:
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head,
            index,
            delta,
            logprobs,
            reason,
            self._usage,
        )


class DeltaFunction(msgspec.Struct, frozen=True, gc=False):
    arguments: str
    name: str | UnsetType = UNSET


class DeltaToolCall(msgspec.Struct, frozen=True, gc=False):
    index: int
    function: DeltaFunction
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct, frozen=True, gc=False):
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[DeltaToolCall] | UnsetType = UNSET


def _delta(event: Token) -> bytes:
    calls = UNSET if event.tool_calls is None else [_call_delta(call) for call in event.tool_calls]
    if event.reasoning:
        return encode_json(Delta(reasoning_content=event.text, tool_calls=calls))
    text = event.text if event.text or event.tool_calls is None else UNSET
    return encode_json(Delta(content=text, tool_calls=calls))


def _call_delta(piece: ToolCallDelta) -> DeltaToolCall:
    function = DeltaFunction(piece.arguments, UNSET if piece.name is None else piece.name)
    if piece.id is None:
        return DeltaToolCall(piece.index, function)
    return DeltaToolCall(piece.index, function, piece.id, "function")


def _choice(index: int, choice: FoldedChoice, reason: FinishReason, logprobs: bool) -> ChatChoice:
    calls = [
        ToolCall(call.id, FunctionCall(call.name, call.arguments))
        for _, call in sorted(choice.calls.items())
    ]
    text = choice.text
    message = AnswerMessage(
        "assistant",
        text if text or not calls else None,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )
    said = ChatLogprobs([_logprob(entry) for entry in choice.logprobs]) if logprobs else None
    return ChatChoice(index, message, said, reason)


def _logprob(entry: TokenLogprob) -> ContentLogprob:
    return ContentLogprob(
        entry.token,
        -9999.0 if entry.logprob is None else entry.logprob,
        entry.bytes or None,
        [TopLogprob(token, logprob, raw or None) for token, logprob, raw in entry.top],
    )
