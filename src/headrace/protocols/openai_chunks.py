"""What the streams of OpenAI's chat and legacy completions have in common: everything but their tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from headrace.domain.event import Error, Event, Finish, Progress, Prompt, Token
from headrace.protocols.encoder import EventEncoder, Framing, encode_json
from headrace.protocols.errors import ErrorAnswer, error_object
from headrace.protocols.native import native_event
from headrace.protocols.openai_usage import usage_json
from headrace.protocols.port import Generation


class ChunkEncoder(EventEncoder):
    """Chunks of one stream. Options: ``usage`` (``stream_options.include_usage``), ``progress``, ``prompt``.
    ``id`` and ``kind`` (``object``) are in every chunk.

    The events that a client asked for beyond OpenAI's are chunks without choices and with the native
    event as ``headrace``: the SDKs take a message of any name for a chunk, and know chunks without choices.
    """

    __slots__ = ("_choices", "_generation", "_head", "_shown", "_usage")

    def __init__(
        self,
        generation: Generation,
        options: dict[str, Any],
        framing: Framing,
        *,
        id: str,
        kind: bytes,
    ) -> None:
        super().__init__(framing)
        self._generation = generation.id
        self._choices = generation.request.choices
        self._usage = b',"usage":null}' if options.get("usage") else b"}"
        """How a chunk ends, from after its choices on."""
        self._shown = {name for name in ("progress", "prompt") if options.get(name)}
        self._head = b'{"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            encode_json(id),
            kind,
            int(generation.created),
            encode_json(generation.model),
        )
        """How a chunk begins, up to its choices."""

    @abstractmethod
    def _token(self, event: Token) -> bytes:
        """The messages of a token; the last one has its cursor."""

    @abstractmethod
    def _closing(self, index: int, reason: bytes) -> bytes:
        """The messages that end a choice, without a cursor."""

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

    def _finish(self, event: Finish) -> bytes:
        pieces = [
            self._closing(index, encode_json(event.reason(index))) for index in range(self._choices)
        ]
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
