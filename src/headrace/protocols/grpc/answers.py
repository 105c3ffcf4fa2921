"""Whole answers as messages."""

from __future__ import annotations

import msgspec

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Finish
from headrace.protocols.fold import Fold, FoldedChoice
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.events import logprob_messages, usage_message
from headrace.protocols.grpc.status import error_message
from headrace.protocols.models import info_of
from headrace.protocols.port import Generation, ModelCard


def infer_response(generation: Generation, fold: Fold) -> pb.InferResponse:
    """The answer of ``Infer``. Raises the error that the log ended with."""
    end = fold.finish()
    choices = fold.choices(generation.request.choices)
    return pb.InferResponse(
        generation_id=generation.id,
        model=generation.model,
        text="".join(choice.text for choice in choices),
        finish_reason=end.reasons[0],
        usage=usage_message(end.usage),
        latency_s=max(0.0, end.timestamp - generation.created),
        choices=[_choice(index, choice, end) for index, choice in enumerate(choices)],
        last_seq=end.seq,
    )


def batch_result(generation: Generation, result: Fold | HeadraceError) -> pb.BatchResult:
    """One item of ``BatchInfer``."""
    try:
        if isinstance(result, HeadraceError):
            raise result
        return pb.BatchResult(response=infer_response(generation, result))
    except HeadraceError as error:
        return pb.BatchResult(error=error_message(error))


def model_info(card: ModelCard) -> pb.GetModelInfoResponse:
    return pb.GetModelInfoResponse(**msgspec.structs.asdict(info_of(card)))


def _choice(index: int, choice: FoldedChoice, end: Finish) -> pb.Choice:
    return pb.Choice(
        index=index,
        text=choice.text,
        reasoning=choice.reasoning,
        tool_calls=[
            pb.ToolCall(index=number, id=call.id, name=call.name, arguments=call.arguments)
            for number, call in sorted(choice.calls.items())
        ],
        logprobs=logprob_messages(choice.logprobs),
        finish_reason=end.reason(index),
    )
