"""OpenAI chat completions: the stream of chunks and the whole answer, both from the log's events.

https://platform.openai.com/docs/api-reference/chat-streaming and ``openai.types.chat``. Nullable fields
that OpenAI's schema requires are there as ``null``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from headrace.domain.event import (
    Error,
    Event,
    Finish,
    FinishReason,
    Progress,
    Prompt,
    Token,
    TokenLogprob,
    ToolCallDelta,
)
from headrace.protocols.encoder import EventEncoder, Framing, Writer, encode_json
from headrace.protocols.errors import ErrorAnswer, error_object
from headrace.protocols.fold import Fold, FoldedChoice
from headrace.protocols.native import native_event
from headrace.protocols.openai_usage import CompletionUsage, usage_json
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


_COMPLETION = (
    b'{"id":"%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b],"usage":%b}'
)
"""A :class:`ChatCompletion`; with the next one it saves the structs of nearly every answer."""
_PLAIN_CHOICE = (
    b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null,"annotations":[]},'
    b'"logprobs":null,"finish_reason":%b}'
)
"""A :class:`ChatChoice` that has only text."""


def chat_completion(generation: Generation, fold: Fold) -> bytes:
    """The whole answer. Raises the error that the log ended with."""
    end = fold.finish()
    logprobs = generation.request.sampling.logprobs is not None
    reasons = end.reasons
    choices = []
    for index, choice in enumerate(fold.choices):
        reason = reasons[index if index < len(reasons) else 0]
        choices.append(_choice(index, choice, reason, logprobs))
    return _COMPLETION % (
        chat_id(generation).encode(),
        int(generation.created),
        encode_json(generation.model),
        b",".join(choices),
        usage_json(end.usage),
    )


def chat_id(generation: Generation) -> str:
    """``chatcmpl-`` and the generation's ULID."""
    return "chatcmpl-" + generation.id[4:]  # after "gen_"


class ChatEncoder(EventEncoder):
    """Chunks of one stream. Options: ``usage`` (``stream_options.include_usage``), ``progress``, ``prompt``.

    The events that a client asked for beyond OpenAI's are chunks without choices and with the native
    event as ``headrace``: the SDKs take a message of any name for a chunk, and know chunks without choices.
    """

    __slots__ = (
        "_after_delta",
        "_choices",
        "_framing",
        "_generation",
        "_head",
        "_shown",
        "_usage",
        "_writers",
    )

    def __init__(
        self, generation: Generation, options: dict[str, bool], framing: Framing, after: int
    ) -> None:
        super().__init__(after)
        self._framing = framing
        self._generation = generation.id
        self._choices = generation.request.choices
        self._usage = b',"usage":null}' if options.get("usage") else b"}"
        self._shown = {name for name in ("progress", "prompt") if options.get(name)}
        self._head = (
            b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
            % (
                encode_json(chat_id(generation)),
                int(generation.created),
                encode_json(generation.model),
            )
        )
        self._writers: dict[int, Writer] = {}

    def encode(self, events: Sequence[Event]) -> bytes:
        """Text is nearly all that comes: here it costs no call of its own."""
        after = self._after
        pieces = []
        for event in events:
            if (
                type(event) is Token
                and event.logprobs is None
                and event.tool_calls is None
                and not event.reasoning
                and event.index in self._writers
            ):
                data = self._writers[event.index]((event.seq, encode_json(event.text)))
            else:
                data = self._event(event)
            if event.seq > after:
                pieces.append(data)
        return b"".join(pieces)

    def _event(self, event: Event) -> bytes:
        match event:
            case Token():
                return self._token(event)
            case Finish():
                return self._finish(event)
            case Error():
                body = encode_json(ErrorAnswer(error_object(event)))
                return self._framing.message(event.seq, body)
            case Progress():
                return self._extra(event, "progress")
            case Prompt():
                return self._extra(event, "prompt")

    def _token(self, event: Token) -> bytes:
        """A token that is its choice's first, or has more than text."""
        logprobs = b"null"
        if event.logprobs is not None:
            logprobs = encode_json(ChatLogprobs([_logprob(entry) for entry in event.logprobs]))
        chunk = self._chunk(event.index, _delta(event), logprobs, b"null")
        return self._role(event.index) + self._framing.message(event.seq, chunk)

    def _role(self, index: int) -> bytes:
        """The chunk that opens a choice, before its first other chunk; nothing after that."""
        if index in self._writers:
            return b""
        before = b'%b{"index":%d,"delta":{"content":' % (self._head, index)
        after = b'},"logprobs":null,"finish_reason":null}]' + self._usage
        self._writers[index] = self._framing.writer(before, after)
        opening = b'{"role":"assistant","content":null}'
        return self._framing.part(self._chunk(index, opening, b"null", b"null"))

    def _finish(self, event: Finish) -> bytes:
        pieces = []
        for index in range(self._choices):
            reason = event.reasons[index if index < len(event.reasons) else 0]
            pieces.append(self._role(index))
            chunk = self._chunk(index, b"{}", b"null", encode_json(reason))
            pieces.append(self._framing.part(chunk))
        if self._usage != b"}":
            usage = usage_json(event.usage)
            pieces.append(self._framing.part(b'%b],"usage":%b}' % (self._head, usage)))
        pieces.append(self._framing.done(event.seq))
        return b"".join(pieces)

    def _extra(self, event: Progress | Prompt, name: str) -> bytes:
        if name not in self._shown:
            return b""
        native = native_event(event, self._generation)
        chunk = b'%b],"headrace":%b%b' % (self._head, native, self._usage)
        return self._framing.message(event.seq, chunk, name.encode())

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


def _choice(index: int, choice: FoldedChoice, reason: FinishReason, logprobs: bool) -> bytes:
    if logprobs or choice.calls or choice.thoughts:
        return encode_json(_full_choice(index, choice, reason, logprobs))
    return _PLAIN_CHOICE % (index, encode_json("".join(choice.texts)), encode_json(reason))


def _full_choice(
    index: int, choice: FoldedChoice, reason: FinishReason, logprobs: bool
) -> ChatChoice:
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
