"""A response as a stream: the typed ``response.*`` events of OpenAI, numbered from 0, from a log's events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.domain.event import Error, Event, Finish, Progress, Prompt, Token
from headrace.protocols.encoder import EventEncoder, Framing, encode_json
from headrace.protocols.native import native_event
from headrace.protocols.output import Change, Item, Output
from headrace.protocols.port import Generation
from headrace.protocols.responses_items import outside, part, token_logprob
from headrace.protocols.responses_object import (
    ResponseStatus,
    items_at_end,
    response_object,
    status_at_end,
)

STARTING_AFTER = "starting_after"
"""The option that leaves out the messages up to this number."""

Said = tuple[bytes, bytes]
"""A message's name and its JSON."""


class ResponsesEncoder(EventEncoder):
    """Options: ``progress`` and ``prompt`` as in other formats (messages named ``headrace.progress``, ``…prompt``
    with the native event), ``STARTING_AFTER``: a number of a message."""

    __slots__ = (
        "_after",
        "_begun",
        "_generation",
        "_number",
        "_output",
        "_shown",
        "_started",
    )

    def __init__(self, generation: Generation, options: dict[str, Any], framing: Framing) -> None:
        super().__init__(framing)
        self._generation = generation
        self._output = Output(generation)
        self._shown = {name for name in ("progress", "prompt") if options.get(name)}
        self._after: int = options.get(STARTING_AFTER, -1)
        self._number = -1
        self._begun = self._started = False

    def _event(self, event: Event) -> bytes:
        said = list(self._opening(event))
        match event:
            case Token():
                for change in self._output.token(event):
                    said += self._change(change)
            case Finish() | Error():
                said += self._end(event)
            case Progress():
                said += self._extra(event, "progress")
            case Prompt():
                said += self._extra(event, "prompt")
        return self._laid(said, event)

    def _laid(self, said: list[Said], event: Event) -> bytes:
        """The messages that the reader has not had yet; the last of an event carries its cursor."""
        framing = self._framing
        fresh = said[max(0, self._after - self._number + len(said)) :]
        if event.end is not None:
            return b"".join(framing.part(data, name) for name, data in fresh) + framing.done(
                event.seq
            )
        if not fresh:
            return b""
        *parts, (name, data) = fresh
        pieces = [framing.part(data, name) for name, data in parts]
        return b"".join(pieces) + framing.message(event.seq, data, name)

    def _opening(self, event: Event) -> Iterable[Said]:
        """Before anything else: the response is there; it waits, or is being computed."""
        waits = isinstance(event, Progress) and event.phase == "queued"
        if not self._begun:
            self._begun = True
            yield self._snapshot("created", "queued" if waits else "in_progress")
            if waits:
                yield self._snapshot("queued", "queued")
        if not self._started and not waits and event.end != "error":
            self._started = True
            yield self._snapshot("in_progress", "in_progress")

    def _end(self, event: Finish | Error) -> Iterable[Said]:
        status = status_at_end(event)
        for change in self._output.end(items_at_end(status)):
            yield from self._change(change)
        # OpenAI has no event for a response that was cancelled; its status says it.
        yield self._snapshot("failed" if status == "cancelled" else status, status, event)

    def _change(self, change: Change) -> Iterable[Said]:
        item = change.item
        where: dict[str, Any] = {"output_index": item.at}
        inner = where | {"item_id": item.id, "content_index": 0}
        match change.what:
            case "opened":
                yield self._item("added", item)
                if item.kind != "call":
                    empty = part(item, self._logprobs)
                    yield self._say("response.content_part.added", inner | {"part": empty})
            case "said" if item.kind == "message":
                logprobs = [token_logprob(entry) for entry in change.logprobs]
                fields = {"delta": change.text, "logprobs": logprobs if self._logprobs else []}
                yield self._say("response.output_text.delta", inner | fields)
            case "said" if item.kind == "reasoning":
                yield self._say("response.reasoning_text.delta", inner | {"delta": change.text})
            case "said":
                fields = where | {"item_id": item.id, "delta": change.text}
                yield self._say("response.function_call_arguments.delta", fields)
            case "closed":
                yield from self._closed(item, where, inner)

    def _closed(self, item: Item, where: dict[str, Any], inner: dict[str, Any]) -> Iterable[Said]:
        if item.kind == "call":
            fields = {"item_id": item.id, "name": item.name, "arguments": item.text}
            yield self._say("response.function_call_arguments.done", where | fields)
        else:
            whole = part(item, self._logprobs)
            fields = {"text": item.text}
            if item.kind == "message":
                fields |= {"logprobs": whole["logprobs"]}
                yield self._say("response.output_text.done", inner | fields)
            else:
                yield self._say("response.reasoning_text.done", inner | fields)
            yield self._say("response.content_part.done", inner | {"part": whole})
        yield self._item("done", item)

    @property
    def _logprobs(self) -> bool:
        return self._generation.request.sampling.logprobs is not None

    def _item(self, what: str, item: Item) -> Said:
        fields = {"output_index": item.at, "item": outside(item, self._logprobs)}
        return self._say(f"response.output_item.{what}", fields)

    def _snapshot(
        self, name: str, status: ResponseStatus, end: Finish | Error | None = None
    ) -> Said:
        response = response_object(self._generation, self._output, status, end)
        return self._say(f"response.{name}", {"response": response})

    def _extra(self, event: Progress | Prompt, name: str) -> Iterable[Said]:
        if name in self._shown:
            native = native_event(event, self._generation.id)
            kind = f"headrace.{name}"
            head = encode_json({"type": kind, "sequence_number": self._next()})
            yield kind.encode(), b'%b,"event":%b}' % (head[:-1], native)

    def _say(self, kind: str, fields: dict[str, Any]) -> Said:
        data = encode_json({"type": kind, "sequence_number": self._next(), **fields})
        return kind.encode(), data

    def _next(self) -> int:
        self._number += 1
        return self._number
