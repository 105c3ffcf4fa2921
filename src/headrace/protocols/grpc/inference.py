"""``headrace.v1.InferenceService``: the one implementation behind gRPC, gRPC-Web and Connect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.asking import MAX_TOKEN, caller_of, find, stream_events
from headrace.protocols.batch import MAX_BATCH, Batch
from headrace.protocols.body import refuse
from headrace.protocols.formats import NATIVE
from headrace.protocols.generations import prompt_message
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.answers import batch_result, model_info
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.requests import infer_request
from headrace.protocols.grpc.rpcs import Answer, Method, methods_of
from headrace.protocols.grpc.status import error_message
from headrace.protocols.grpc.stream import EventStream, EventStreams
from headrace.protocols.grpc.whole import WholeAnswer
from headrace.protocols.infer import of_item, with_session
from headrace.protocols.pending import Pending
from headrace.protocols.port import Generation, Service
from headrace.protocols.submitting import Asked, submit, submitted

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]


class Inference:
    """``streams``: those under way, which whoever stops the server closes."""

    def __init__(self, service: Service, streams: EventStreams) -> None:
        self._service = service
        self._streams = streams

    def methods(self) -> Sequence[Method]:
        answers: dict[str, Answer] = {
            "Infer": self.infer,
            "BatchInfer": self.batch_infer,
            "StreamInfer": self.stream_infer,
            "GetModelInfo": self.model_info,
            "Abort": self.abort,
        }
        return methods_of(SERVICE, answers, {"Converse": self.converse})

    def infer(self, call: RpcCall, asked: pb.InferRequest) -> Pending | None:
        return submit(
            self._service, self.asked(call, asked, stream=False), partial(self._answer, call)
        )

    def _answer(self, call: RpcCall, generation: Generation) -> None:
        call.reservation = generation.reservation
        WholeAnswer(call, generation, self._streams).attach()

    async def batch_infer(self, call: RpcCall, asked: pb.BatchInferRequest) -> None:
        items = asked.requests
        if len(items) > MAX_BATCH:
            raise refuse("requests", f"has {len(items)} items; {MAX_BATCH} is the most")
        caller_of(call)  # what is wrong with it is wrong for all

        def done(results: list[pb.BatchResult]) -> None:
            call.answer(pb.BatchInferResponse(results=results))

        batch = Batch(len(items), batch_result, done)
        call.reply.watch(batch.close, None)
        for position, item in enumerate(items):
            try:
                one = self.asked(call, item, stream=False)
                one = one._replace(caller=of_item(one.caller, position, None))
                generation = await submitted(self._service, one)
            except HeadraceError as error:
                batch.put(position, pb.BatchResult(error=error_message(error)))
            else:
                batch.wait(position, generation)
        batch.submitted()

    def stream_infer(self, call: RpcCall, asked: pb.StreamInferRequest) -> Pending | None:
        match asked.WhichOneof("start"):
            case "infer":
                return self.begin(call, asked.infer)
            case "resume":
                return self.resume(call, asked.resume)
            case _:
                raise refuse("start", "must be `infer` or `resume`")

    def converse(self, call: RpcCall) -> Conversation:
        return Conversation(self, self._service, call)

    def model_info(self, call: RpcCall, asked: pb.GetModelInfoRequest) -> None:
        call.answer(model_info(self._service.model(asked.model or self._first_model())))

    def abort(self, call: RpcCall, asked: pb.AbortRequest) -> None:
        if not 1 <= len(asked.token) <= MAX_TOKEN:
            raise refuse("token", f"must have 1 to {MAX_TOKEN} characters")
        call.answer(pb.AbortResponse(aborted=self._service.abort(asked.token, call.tenant)))

    def asked(self, call: RpcCall, asked: pb.InferRequest, *, stream: bool) -> Asked:
        """What the service is asked. Raises what is wrong with it."""
        request = infer_request(asked, self._first_model(), stream=stream)
        caller = with_session(caller_of(call), asked.session_id or None)
        return Asked(request, caller, NATIVE, stream_events(call) or {})

    def begin(
        self,
        call: RpcCall,
        asked: pb.InferRequest,
        began: Callable[[Generation], None] | None = None,
    ) -> Pending | None:
        """Begin a generation, or join the one that this is a repeat of; answer with its events."""

        def then(generation: Generation) -> None:
            call.reservation = generation.reservation
            if began is not None:
                began(generation)
            shows = generation.wire_options
            EventStream(call, generation, self._streams, reading=False, shows=shows).attach()

        return submit(self._service, self.asked(call, asked, stream=True), then)

    async def resume(self, call: RpcCall, place: pb.Resume) -> None:
        """Answer with the events of a generation that exists."""
        generation = await find(call, self._service, place.generation_id)
        self.read(call, generation, place.after)

    def read(self, call: RpcCall, generation: Generation, after: int) -> None:
        """Answer with the events after a cursor. Raises ``CURSOR_AHEAD``."""
        if after > generation.last_seq:
            said = f"There is no event {after} yet; the newest of {generation.id} is"
            raise HeadraceError(Code.CURSOR_AHEAD, f"{said} {generation.last_seq}.", param="after")
        shows = stream_events(call)
        stream = EventStream(
            call, generation, self._streams, reading=True, after=after, shows=shows
        )
        stream.attach()

    def _first_model(self) -> str:
        cards = self._service.models()
        if not cards:
            raise HeadraceError(Code.MODEL_NOT_FOUND, "This server serves no model.", param="model")
        return cards[0].name


class Conversation:
    """``Converse``: what its client says, to one generation."""

    def __init__(self, inference: Inference, service: Service, call: RpcCall) -> None:
        self._inference = inference
        self._service = service
        self._call = call
        self._generation: Generation | None = None

    def received(self, said: pb.ConverseRequest) -> Awaitable[None] | None:
        generation = self._generation
        match said.WhichOneof("say"):
            case "infer" if generation is None:
                return self._inference.begin(self._call, said.infer, self._began)
            case "resume" if generation is None:
                return self._resume(said.resume)
            case "prompt" if generation is not None:
                return self._prompt(generation, said.prompt)
            case "abort" if generation is not None:
                self._service.cancel(generation)
            case _:
                what = "`prompt` or `abort`" if generation else "`infer` or `resume`"
                raise refuse("say", f"must be {what} here")
        return None

    def _began(self, generation: Generation) -> None:
        self._generation = generation

    def half_closed(self) -> None:
        if self._generation is None:
            raise refuse("say", "is required: the call ended before its first message")

    async def _prompt(self, generation: Generation, said: pb.Prompt) -> None:
        message = prompt_message(said.role, said.content, "prompt.")
        await self._service.prompt(generation, message)

    async def _resume(self, place: pb.Resume) -> None:
        generation = await find(self._call, self._service, place.generation_id)
        self._generation = generation
        self._inference.read(self._call, generation, place.after)
