"""The run of one inference: its outputs are where they are wanted when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.domain.request import Caller
from headrace.domain.tensors import Tensor, TensorRequest, TensorResponse
from headrace.protocols.body import refuse
from headrace.protocols.kserve.asked import Asked, Place, Wanted
from headrace.protocols.kserve.classification import classified
from headrace.protocols.kserve.datatypes import bytes_of
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
    ``INVALID_REQUEST`` for an output that is larger than its place, or has no classes. ``span``: of
    the request, if it is recorded."""
    request = asked.request
    by_name = {wanted.name: wanted for wanted in asked.outputs}
    request.into = _rooms(asked.outputs, memory, caller.tenant)
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
            place = _put(tensor, wanted.place, request, memory, caller.tenant)
            wanted = Wanted(tensor.name, False, place)
        elif wanted.binary is None:
            wanted = Wanted(tensor.name, asked.binary)
        outputs.append(Output(tensor, wanted))
    return Answered(response, outputs)


def _learnt(response: TensorResponse) -> Attributes:
    return {"headrace.model": response.model, "headrace.model.version": response.version}


def _rooms(outputs: Sequence[Wanted], memory: Memory, tenant: str) -> dict[str, Any]:
    """Shared memory that outputs may be written to in place. Raises ``INVALID_REQUEST`` for a place that is none."""
    rooms: dict[str, Any] = {}
    for wanted in outputs:
        if wanted.place is not None:
            region = memory.find(tenant, wanted.place.region)
            room = region.room(wanted.place.offset, wanted.place.size)
            if room is not None:
                rooms[wanted.name] = np.frombuffer(room, np.uint8)
    return rooms


def _put(
    tensor: Tensor, place: Place, request: TensorRequest, memory: Memory, tenant: str
) -> Place:
    """Have an output in its place, and say that with its true size. Raises ``INVALID_REQUEST`` if it is larger."""
    room = request.into.get(tensor.name)
    if room is not None and np.may_share_memory(room, tensor.array):
        return Place(place.region, place.offset, tensor.array.nbytes)
    data = bytes_of(tensor)
    if len(data) > place.size:
        said = f"has {len(data)} bytes; the place for it has {place.size}"
        raise refuse(f"outputs.{tensor.name}", said)
    memory.find(tenant, place.region).write(place.offset, data)
    return Place(place.region, place.offset, len(data))
