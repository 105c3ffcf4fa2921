"""A message as a stream: Anthropic's events from a log's events.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Event, Finish, Progress, Prompt, Token
from headrace.protocols.anthropic_errors import anthropic_error
from headrace.protocols.anthropic_message import (
    delta_usage,
    empty_block,
    message_beginning,
    stop_of,
)
from headrace.protocols.encoder import EventEncoder, Framing, encode_json
from headrace.protocols.errors import from_event
from headrace.protocols.native import native_event
from headrace.protocols.output import Change, Item, Output
from headrace.protocols.port import Generation

_DELTA = b"content_block_delta"
_PING = b'{"type":"ping"}'
_SAID: dict[str, tuple[str, str]] = {
    "message": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}

Said = tuple[bytes, bytes]
"""A message's name and its JSON."""


class AnthropicEncoder(EventEncoder):
    """Options: ``progress`` and ``prompt`` as in other formats (events named ``headrace.progress``, ``…prompt``
    with the native event). The message begins with the first token, so that an error before that is a status;
    pings keep the stream alive until then and after."""

    __slots__ = ("_begun", "_generation", "_output", "_prompt_tokens", "_shown")

    def __init__(self, generation: Generation, options: dict[str, Any], framing: Framing) -> None:
        super().__init__(framing)
        self._generation = generation
        self._output = Output(generation, one_at_a_time=True)
        self._shown = {name for name in ("progress", "prompt") if options.get(name)}
        self._prompt_tokens = 0
        self._begun = False

    @property
    def heartbeat(self) -> bytes:
        return self._framing.part(_PING, b"ping")

    def lost(self, error: HeadraceError) -> bytes:
        return self._framing.part(self._error(error), b"error")

    def _event(self, event: Event) -> bytes:
        said: list[Said] = []
        match event:
            case Token():
                changes = list(self._output.token(event))
                if changes:
                    said += self._opening()
                for change in changes:
                    said.append(self._change(change))
            case Finish():
                said += self._opening()
                said += self._end(event)
            case Error():
                said.append((b"error", self._error(from_event(event))))
            case Progress():
                self._prompt_tokens = event.total or self._prompt_tokens
                said += self._extra(event, "progress")
            case Prompt():
                said += self._extra(event, "prompt")
        return self._laid(said, event)

    def _laid(self, said: list[Said], event: Event) -> bytes:
        """The last message of an event carries its cursor."""
        if not said:
            return b""
        framing = self._framing
        *parts, (name, data) = said
        pieces = [framing.part(data, name) for name, data in parts]
        return b"".join(pieces) + framing.message(event.seq, data, name)

    def _opening(self) -> Iterable[Said]:
        if not self._begun:
            self._begun = True
            message = message_beginning(self._generation, self._prompt_tokens)
            yield b"message_start", encode_json({"type": "message_start", "message": message})
            yield b"ping", _PING

    def _end(self, event: Finish) -> Iterable[Said]:
        for change in self._output.end("completed"):
            yield self._change(change)
        reason, sequence = stop_of(self._generation, self._output, event)
        delta = {
            "stop_reason": reason,
            "stop_sequence": sequence,
            "stop_details": None,
            "container": None,
        }
        usage = delta_usage(event.usage)
        closing = {"type": "message_delta", "delta": delta, "usage": usage}
        yield b"message_delta", encode_json(closing)
        yield b"message_stop", b'{"type":"message_stop"}'

    def _change(self, change: Change) -> Said:
        item = change.item
        match change.what:
            case "opened":
                if item.kind == "message":
                    self.writers[0] = self._writer(item)
                fields = {"index": item.at, "content_block": empty_block(item)}
                return _say("content_block_start", fields)
            case "said":
                kind, name = _SAID[item.kind]
                delta = {"type": kind, name: change.text}
                return _say("content_block_delta", {"index": item.at, "delta": delta})
            case "closed":
                if item.kind == "message":
                    self.writers.pop(0, None)
                return _say("content_block_stop", {"index": item.at})

    def _writer(self, item: Item) -> Any:
        before = b'{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'
        return self._framing.writer(before % item.at, b"}}", _DELTA)

    def _error(self, error: HeadraceError) -> bytes:
        return anthropic_error(error, self._generation.caller.request_id)

    def _extra(self, event: Progress | Prompt, name: str) -> Iterable[Said]:
        if name in self._shown:
            native = native_event(event, self._generation.id)
            kind = b"headrace.%b" % name.encode()
            yield kind, b'{"type":"%b","event":%b}' % (kind, native)


def _say(kind: str, fields: dict[str, Any]) -> Said:
    return kind.encode(), encode_json({"type": kind, **fields})
