"""``ModelInferRequest`` into what KServe V2 is asked on all wires, and its answer into ``ModelInferResponse``.

Messages have raw contents, not FlatBuffers or a tensor type of their own: a field of bytes is the same for every client
of the published definitions, and is parsed without looking at its elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from headrace.domain.errors import Code
from headrace.domain.tensors import Datatype, Tensor
from headrace.protocols.body import convert_part, refuse
from headrace.protocols.grpc import open_inference_pb2 as pb
from headrace.protocols.grpc.open_inference_raw import RawRequest, RawResponse
from headrace.protocols.kserve.asked import (
    MAX_ID,
    MAX_TENSORS,
    NOTHING,
    NOTHING_MORE,
    Asked,
    Place,
    RequestParameters,
    TensorParameters,
    Wanted,
    asked,
    place_of,
    place_parameters,
    shared_tensor,
    wanted_output,
)
from headrace.protocols.kserve.datatypes import (
    bytes_of,
    checked_shape,
    known_datatype,
    tensor_of,
)
from headrace.protocols.kserve.json_data import numbers, strings
from headrace.protocols.kserve.running import Answered
from headrace.protocols.memory_port import Memory

_CONTENTS: dict[Datatype, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that has the elements of a type; others are sent raw only."""


def infer_asked(request: RawRequest, memory: Memory, tenant: str) -> Asked:
    """Raises ``INVALID_REQUEST`` and ``NOT_FOUND``, naming the field."""
    said = request.message
    if not 1 <= len(said.inputs) <= MAX_TENSORS:
        raise refuse("inputs", f"must have 1 to {MAX_TENSORS} tensors")
    if len(said.id) > MAX_ID:
        raise refuse("id", f"must have at most {MAX_ID} characters")
    outputs = [
        _output(each, f"outputs[{index}].parameters") for index, each in enumerate(said.outputs)
    ]
    inputs, places = _inputs(request, memory, tenant)
    parameters = _typed_parameters(said.parameters, NOTHING_MORE, "parameters")
    name, version = said.model_name, said.model_version
    return asked(name, version, said.id, inputs, outputs, parameters, places)


def infer_response(answered: Answered) -> RawResponse:
    response = answered.response
    made = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    raw: list[memoryview] = []
    for tensor, wanted in answered.outputs:
        output = made.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if wanted.place is None:
            raw.append(bytes_of(tensor))
            continue
        raw.append(memoryview(b""))
        for name, value in place_parameters(wanted.place).items():
            if isinstance(value, int):
                output.parameters[name].int64_param = value
            else:
                output.parameters[name].string_param = value
    return RawResponse(made, raw)


def _output(each: pb.ModelInferRequest.InferRequestedOutputTensor, path: str) -> Wanted:
    return wanted_output(each.name, _typed_parameters(each.parameters, NOTHING, path), path)


def _inputs(request: RawRequest, memory: Memory, tenant: str) -> tuple[list[Tensor], list[Place]]:
    """All inputs, and the places of those in shared memory."""
    inputs = []
    places = []
    raw = request.raw
    taken = 0
    for index, each in enumerate(request.message.inputs):
        path = f"inputs[{index}]"
        at = f"{path}.parameters"
        place = place_of(_typed_parameters(each.parameters, NOTHING, at), at)
        if place is not None:
            places.append(place)
            tensor = shared_tensor(
                each.name, each.datatype, each.shape, place, memory, tenant, path
            )
        elif raw:
            if taken == len(raw):
                raise refuse("raw_input_contents", f"has nothing for `{path}`")
            tensor = _raw(each, raw[taken], path)
            taken += 1
        else:
            tensor = _typed(each, path)
        inputs.append(tensor)
    if taken < len(raw):
        said_ = f"has {len(raw)} tensors, {taken} of them for an input"
        raise refuse("raw_input_contents", said_)
    return inputs, places


def _raw(each: pb.ModelInferRequest.InferInputTensor, data: memoryview, path: str) -> Tensor:
    if each.HasField("contents"):
        raise refuse(f"{path}.contents", "and `raw_input_contents` exclude each other")
    datatype = known_datatype(each.datatype, path)
    return tensor_of(each.name, datatype, checked_shape(each.shape, path), data, path)


def _typed(each: pb.ModelInferRequest.InferInputTensor, path: str) -> Tensor:
    datatype = known_datatype(each.datatype, path)
    shape = checked_shape(each.shape, path)
    field = _CONTENTS.get(datatype)
    where = f"{path}.contents"
    if field is None:
        said = f"cannot have {datatype}: send it in `raw_input_contents`"
        raise refuse(where, said, Code.UNSUPPORTED)
    for other, _ in each.contents.ListFields():
        if other.name != field:
            raise refuse(f"{where}.{other.name}", f"is not for {datatype}, which is in `{field}`")
    values = list(getattr(each.contents, field))
    if datatype == "BYTES":
        return Tensor(each.name, datatype, shape, strings(values, shape, where))
    return Tensor(each.name, datatype, shape, numbers(values, datatype, shape, where))


P = TypeVar("P", TensorParameters, RequestParameters)


def _typed_parameters(given: Mapping[str, pb.InferParameter], none: P, path: str) -> P:
    """As JSON would have them; ``none``: without any. Raises ``INVALID_REQUEST``."""
    if not given:
        return none
    made = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            made[name] = getattr(value, kind)
    return convert_part(made, type(none), path)
