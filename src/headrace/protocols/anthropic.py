"""``/v1/messages``: a generation seen as Anthropic's Messages API sees it.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error
from headrace.protocols.accept import require_json
from headrace.protocols.anthropic_errors import ANTHROPIC_MANNER
from headrace.protocols.anthropic_message import TokenCount, message_object
from headrace.protocols.anthropic_request import ENGINE_NAMES, decode_count, decode_messages
from headrace.protocols.asking import caller_of, chosen_form, stream_events, take_request
from headrace.protocols.body import check_json_body, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.errors import from_event, named
from headrace.protocols.formats import ANTHROPIC, ENCODERS
from headrace.protocols.openai_request import renamed
from headrace.protocols.output import OutputReader
from headrace.protocols.pending import Pending
from headrace.protocols.port import Generation, Service
from headrace.protocols.router import Route
from headrace.protocols.stream import ClientStream, OpenStreams
from headrace.protocols.submitting import Asked, submit

Resumed = Callable[[Call], Pending]


class Messages:
    """``resumed``: answers a ``POST`` that only reads on."""

    def __init__(self, service: Service, streams: OpenStreams, resumed: Resumed) -> None:
        self._service = service
        self._streams = streams
        self._resumed = resumed

    def routes(self) -> Sequence[Route]:
        manner = ANTHROPIC_MANNER
        return (
            Route("POST", "/v1/messages", self.create, manner=manner),
            Route("POST", "/v1/messages/count_tokens", self.count, manner=manner),
        )

    def create(self, call: Call, _: str) -> Pending | None:
        """Begin a generation, and answer from its log."""
        if call.terms.resumes:
            return self._resumed(call)
        check_json_body(call)
        request, options, session_id = decode_messages(call.exchange.body)
        if request.stream:
            chosen_form(call)
        else:
            require_json(call.header(b"accept"))
        options = stream_events(call) or options
        caller = caller_of(call, session_id)
        asked = Asked(request, caller, ANTHROPIC, dict(options), ENGINE_NAMES)
        return submit(self._service, asked, partial(self._answer, call))

    def _answer(self, call: Call, generation: Generation) -> None:
        call.reservation = generation.reservation
        if generation.request.stream:
            framing = FRAMINGS[call.terms.form or chosen_form(call)]
            encoder = ENCODERS[ANTHROPIC](generation, generation.wire_options, framing)
            ClientStream(call, generation, encoder, framing, self._streams, reading=False).attach()
        else:
            answer = _Answer(call, generation)
            call.exchange.on_gone = answer.close
            answer.begin(client=True)

    async def count(self, call: Call, _: str) -> None:
        """Tokens of the prompt that a request would have."""
        request = decode_count(require_json_body(call))
        require_json(call.header(b"accept"))
        take_request(call, self._service, request.model)
        try:
            count = await self._service.count_prompt(request)
        except HeadraceError as error:
            raise renamed(error, ENGINE_NAMES) from None
        call.json(TokenCount(count))


class _Answer(OutputReader):
    """The reader behind a whole answer."""

    def __init__(self, call: Call, generation: Generation) -> None:
        super().__init__(generation, one_at_a_time=True)
        self._call = call

    def over(self) -> None:
        call, generation, end = self._call, self.generation, self.end
        try:
            if self.error is not None:
                call.fail(self.error, named(generation))
            elif isinstance(end, Error):
                call.fail(from_event(end), named(generation))
            elif end is not None:
                call.json(message_object(generation, self.output, end), headers=named(generation))
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            call.crash()
