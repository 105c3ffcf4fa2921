"""Requests that begin a generation and answer from its log: the endpoints of OpenAI.

The way is synchronous from the body to ``submit``: a request costs no task. A ``POST`` with
``Last-Event-ID`` resumes the generation it names and never computes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.protocols.accept import require_json, stream_form
from headrace.protocols.asking import caller_of, last_event_id, stream_events
from headrace.protocols.body import require_json_body
from headrace.protocols.call import Call
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.errors import Header
from headrace.protocols.fold import Fold
from headrace.protocols.formats import ENCODERS, OPENAI_CHAT, OPENAI_COMPLETIONS
from headrace.protocols.openai_chat import chat_completion
from headrace.protocols.openai_completions import text_completion
from headrace.protocols.openai_request import Asked, decode_chat, decode_completion
from headrace.protocols.port import Generation, Service, Subscription
from headrace.protocols.router import Route
from headrace.protocols.stream import ClientStream, OpenStreams

Render = Callable[[Generation, Fold], bytes]
Resume = Callable[[Call, str, int], Awaitable[None]]


class Generate:
    """``resume``: reads on in the log of a generation, by id and cursor."""

    def __init__(self, service: Service, streams: OpenStreams, resume: Resume) -> None:
        self._service = service
        self._streams = streams
        self._resume = resume

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/v1/chat/completions", self.chat),
            Route("POST", "/v1/completions", self.completion),
        )

    def chat(self, call: Call, _: str) -> Awaitable[None] | None:
        return self.begin(call, decode_chat, OPENAI_CHAT, chat_completion)

    def completion(self, call: Call, _: str) -> Awaitable[None] | None:
        return self.begin(call, decode_completion, OPENAI_COMPLETIONS, text_completion)

    def begin(
        self, call: Call, decode: Callable[[bytes], Asked], wire: str, render: Render
    ) -> Awaitable[None] | None:
        """Decode, submit, and answer from the log: as a stream, or at once when it has ended."""
        if b"last-event-id" in call.fields:
            return self.resumed(call)
        asked = decode(require_json_body(call))
        if asked.request.stream:
            self.stream(call, asked, wire)
        else:
            require_json(call.header(b"accept"))
            WholeAnswer(call, self.submit(call, asked, wire), render).attach()
        return None

    def submit(self, call: Call, asked: Asked, wire: str) -> Generation:
        options = asked.wire_options
        if b"x-stream-events" in call.fields:
            options = options | (stream_events(call) or {})
        caller = caller_of(call, asked.session_id)
        return self._service.submit(asked.request, caller, wire, options)

    def stream(self, call: Call, asked: Asked, wire: str) -> None:
        framing = FRAMINGS[stream_form(call.header(b"accept"))]
        generation = self.submit(call, asked, wire)
        encoder = ENCODERS[wire](generation, generation.wire_options, framing, 0)
        ClientStream(call, generation, encoder, framing, self._streams, reading=False).attach()

    def resumed(self, call: Call) -> Awaitable[None]:
        """Read on where this client was. Raises ``INVALID_REQUEST`` if it does not say in which generation."""
        generation_id = call.header(b"x-generation-id")
        if not generation_id:
            raise HeadraceError(
                Code.INVALID_REQUEST,
                "A POST with Last-Event-ID resumes; X-Generation-Id must name the generation.",
                param="X-Generation-Id",
            )
        return self._resume(call, generation_id, last_event_id(call) or 0)


class WholeAnswer:
    """The reader behind an answer without a stream: folds the whole log, then answers once."""

    __slots__ = ("_call", "_fold", "_generation", "_open", "_render", "_subscription")

    def __init__(self, call: Call, generation: Generation, render: Render) -> None:
        self._call = call
        self._generation = generation
        self._render = render
        self._fold = Fold(generation.request.choices)
        self._open = True
        self._subscription: Subscription | None = None

    def attach(self) -> None:
        """Begin to read; a log that has ended is answered before this returns."""
        self._call.exchange.on_gone = self._gone
        subscription = self._generation.attach(self, client=True)
        if self._open:
            self._subscription = subscription

    def events(self, events: Sequence[Event]) -> bool:
        fold = self._fold
        fold.add(events)
        if fold.end is not None and self._open:
            self._close()
            self._answer()
        return True

    def lost(self, error: HeadraceError) -> None:
        if self._open:
            self._close()
            self._call.fail(error, self._headers())

    def _answer(self) -> None:
        try:
            body = self._render(self._generation, self._fold)
            self._call.json_bytes(body, self._headers())
        except HeadraceError as error:
            self._call.fail(error, self._headers())
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            self._call.crash()

    def _headers(self) -> tuple[Header]:
        return ((b"x-generation-id", self._generation.id.encode()),)

    def _close(self) -> None:
        """Take no more. The subscription holds this reader, so that letting go of it leaves no cycle."""
        self._open = False
        self._subscription = None

    def _gone(self) -> None:
        subscription = self._subscription
        self._close()
        if subscription is not None:
            subscription.close()
