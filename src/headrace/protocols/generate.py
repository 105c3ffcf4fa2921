"""Requests that begin a generation and answer from its log: the endpoints of OpenAI.

The way is synchronous from the body to ``submit``: a request costs no task. A ``POST`` with
``Last-Event-ID`` resumes the generation it names and never computes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.accept import require_json, stream_form
from headrace.protocols.asking import caller_of, last_event_id, stream_events
from headrace.protocols.body import require_json_body
from headrace.protocols.call import Call
from headrace.protocols.collector import Collector
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.fold import Fold
from headrace.protocols.formats import ENCODERS, OPENAI_CHAT, OPENAI_COMPLETIONS
from headrace.protocols.openai_chat import chat_completion
from headrace.protocols.openai_completions import text_completion
from headrace.protocols.openai_request import Asked, decode_chat, decode_completion
from headrace.protocols.port import Generation, Service
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
            generation = self.submit(call, asked, wire)
            answer_whole(call, generation, render)
        return None

    def submit(self, call: Call, asked: Asked, wire: str) -> Generation:
        options = asked.wire_options
        wanted = stream_events(call)
        if wanted is not None:
            options = options | wanted
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


def answer_whole(call: Call, generation: Generation, render: Render) -> None:
    """Answer once, when the log has ended."""
    headers = [(b"x-generation-id", generation.id.encode())]

    def done(result: Fold | HeadraceError) -> None:
        try:
            if isinstance(result, HeadraceError):
                raise result
            call.json_bytes(render(generation, result), headers)
        except HeadraceError as error:
            call.fail(error, headers)
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            call.crash()

    collector = Collector(generation, done, client=True)
    call.exchange.on_gone = collector.close
