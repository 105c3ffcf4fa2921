"""Requests that begin a generation and answer from its log: the endpoints of OpenAI.

The way is synchronous from the body to ``submit``: a request costs no task. A ``POST`` with
``Last-Event-ID`` resumes the generation it names and never computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller, Request
from headrace.protocols.asking import (
    caller_of,
    check_takes_json,
    chosen_form,
    last_event_id,
    stream_events,
)
from headrace.protocols.body import check_json_body
from headrace.protocols.call import Call
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.errors import named
from headrace.protocols.fold import Fold
from headrace.protocols.formats import ENCODERS, OPENAI_CHAT, OPENAI_COMPLETIONS
from headrace.protocols.openai_chat import chat_completion
from headrace.protocols.openai_completions import text_completion
from headrace.protocols.openai_request import Asked, decode_chat, decode_completion
from headrace.protocols.pending import Pending
from headrace.protocols.port import Generation, Service, Subscription
from headrace.protocols.router import Route
from headrace.protocols.stream import ClientStream, OpenStreams

Resume = Callable[[Call, str, int], Pending]


class Form(NamedTuple):
    """What an endpoint reads and says: its body, the format of its log's first reader, its whole answer."""

    decode: Callable[[bytes], Asked]
    wire: str
    render: Callable[[Generation, Fold], bytes]


CHAT = Form(decode_chat, OPENAI_CHAT, chat_completion)
COMPLETION = Form(decode_completion, OPENAI_COMPLETIONS, text_completion)


class Generate:
    """``resume``: reads on in the log of a generation, by id and cursor."""

    def __init__(self, service: Service, streams: OpenStreams, resume: Resume) -> None:
        self._service = service
        self._streams = streams
        self._resume = resume

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/v1/chat/completions", partial(self.begin, CHAT)),
            Route("POST", "/v1/completions", partial(self.begin, COMPLETION)),
        )

    def begin(self, form: Form, call: Call, _: str) -> Pending | None:
        """Decode, submit, and answer from the log: as a stream, or at once when it has ended."""
        terms = call.terms
        if terms.resumes:
            return self.resumed(call)
        body = call.exchange.body
        if not body or not terms.sends_json:
            check_json_body(call)
        wire = form.wire
        request, options, session_id = form.decode(body)
        if request.stream:
            terms.form or chosen_form(call)
        elif not terms.takes_json:
            check_takes_json(call)
        if terms.shows:
            options = options | (stream_events(call) or {})
        caller = caller_of(call, session_id)
        if self._service.joins(request, caller):
            return self._join(form, call, request, caller, options)
        self._answer(form, call, self._service.submit(request, caller, wire, options))
        return None

    async def _join(
        self, form: Form, call: Call, request: Request, caller: Caller, options: Any
    ) -> None:
        """Answer from the log of the generation that this is a repeat of, if there is one."""
        generation = await self._service.submit_once(request, caller, form.wire, options)
        self._answer(form, call, generation)

    def _answer(self, form: Form, call: Call, generation: Generation) -> None:
        call.reservation = generation.reservation
        if generation.request.stream:
            framing = FRAMINGS[call.terms.form or chosen_form(call)]
            encoder = ENCODERS[form.wire](generation, generation.wire_options, framing)
            ClientStream(call, generation, encoder, framing, self._streams, reading=False).attach()
            return
        answer = WholeAnswer(call=call, generation=generation, render=form.render)
        call.exchange.on_gone = answer.gone
        subscription = generation.attach(answer, client=True)
        if answer.open:  # else it is answered already
            answer.subscription = subscription

    def resumed(self, call: Call) -> Pending:
        """Read on where this client was. Raises ``INVALID_REQUEST`` if it does not say in which generation."""
        generation_id = call.header(b"x-generation-id")
        if not generation_id:
            raise HeadraceError(
                Code.INVALID_REQUEST,
                "A POST with Last-Event-ID resumes; X-Generation-Id must name the generation.",
                param="X-Generation-Id",
            )
        return self._resume(call, generation_id, last_event_id(call) or 0)


class WholeAnswer(Fold, kw_only=True, eq=False):
    """The reader behind an answer without a stream: folds the whole log, then answers once."""

    call: Call
    generation: Generation
    render: Callable[[Generation, Fold], bytes]
    subscription: Subscription | None = None
    open: bool = True

    def over(self) -> None:
        if not self.open:
            return
        self.open = False
        self.subscription = None  # it holds this reader: no cycle is left behind
        call, generation = self.call, self.generation
        try:
            call.answer(generation.id, self.render(generation, self))
        except HeadraceError as error:
            call.fail(error, named(generation))
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            call.crash()

    def lost(self, error: HeadraceError) -> None:
        if self.open:
            self.open = False
            self.subscription = None
            self.call.fail(error, named(self.generation))

    def gone(self) -> None:
        """The client left."""
        subscription = self.subscription
        self.open = False
        self.subscription = None
        if subscription is not None:
            subscription.close()
