"""The run of one inference: its outputs are where they are wanted when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.domain.request import Caller
from headrace.domain.tensors import Tensor, TensorResponse
from headrace.protocols.kserve.asked import Asked, Wanted
from headrace.protocols.kserve.classification import classified
from headrace.protocols.kserve.rooms import Rooms
from headrace.protocols.memory_port import Memory
from headrace.protocols.tensor_port import Tensors
from headrace.protocols.tracing import Attributes, Span, worked


class Output(NamedTuple):
    """A tensor of the answer, as it is wanted."""

    tensor: Tensor
    wanted: Wanted


class Answered(NamedTuple):
    response: TensorResponse
    outputs: Sequence[Output]


async def answered(
    tensors: Tensors, memory: Memory, asked: Asked, caller: Caller, span: Span | None
) -> Answered:
    """Run it; outputs for shared memory are there when this returns. Raises as :meth:`Tensors.infer`, and
    as :class:`Rooms`; ``INVALID_REQUEST`` for an output that has no classes. ``span``: of the request, if
    it is recorded."""
    request = asked.request
    by_name = {wanted.name: wanted for wanted in asked.outputs}
    rooms = Rooms(asked, memory, caller.tenant)
    request.into = rooms.into
    work = tensors.infer(request, caller)
    response = await worked(span, f"infer {request.model}", work, _learnt)
    outputs = []
    for tensor in response.outputs:
        wanted = by_name.get(tensor.name)
        if wanted is None:
            wanted = Wanted(tensor.name, asked.binary)
        elif wanted.classes:
            model = tensors.model(response.model, response.version)
            tensor = await classified(tensor, wanted.classes, model)
            wanted = Wanted(tensor.name, asked.binary if wanted.binary is None else wanted.binary)
        elif wanted.place is not None:
            wanted = Wanted(tensor.name, False, rooms.put(tensor, wanted.place))
        elif wanted.binary is None:
            wanted = Wanted(tensor.name, asked.binary)
        outputs.append(Output(tensor, wanted))
    return Answered(response, outputs)


def _learnt(response: TensorResponse) -> Attributes:
    return {"headrace.model": response.model, "headrace.model.version": response.version}
