"""The body of an inference over HTTP: JSON, and behind it the bytes of those inputs that are no JSON.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import Tensor
from headrace.protocols.body import COMPLAINTS, invalid_json, invalid_request, refuse
from headrace.protocols.kserve.asked import (
    MAX_ID,
    MAX_TENSORS,
    NOTHING,
    NOTHING_MORE,
    Asked,
    Place,
    RequestParameters,
    TensorParameters,
    asked,
    place_of,
    shared_tensor,
    wanted_output,
)
from headrace.protocols.kserve.datatypes import checked_shape, known_datatype, tensor_of
from headrace.protocols.kserve.json_data import from_json
from headrace.protocols.memory_port import Memory

_NO_DATA = (b"", b"null")


class InputBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: Annotated[str, Meta(min_length=1)]
    shape: list[int]
    datatype: str
    parameters: TensorParameters = NOTHING
    data: msgspec.Raw = msgspec.Raw()


class OutputBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: Annotated[str, Meta(min_length=1)]
    parameters: TensorParameters = NOTHING


class InferBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /v2/models/{model}/infer``."""

    inputs: Annotated[list[InputBody], Meta(min_length=1, max_length=MAX_TENSORS)]
    id: Annotated[str, Meta(max_length=MAX_ID)] = ""
    parameters: RequestParameters = NOTHING_MORE
    outputs: Annotated[list[OutputBody], Meta(max_length=MAX_TENSORS)] = []


_decode = msgspec.json.Decoder(InferBody).decode


def decode_infer(
    body: bytes, json_size: int | None, model: str, version: str, memory: Memory, tenant: str
) -> Asked:
    """``json_size``: bytes of the JSON, None if it is the whole body. Raises ``INVALID_REQUEST``, ``INVALID_JSON``
    and ``NOT_FOUND``, naming the field."""
    whole = memoryview(body)
    said = _read(whole if json_size is None else whole[:json_size])
    rest = whole[len(body) if json_size is None else json_size :]
    inputs = []
    places = []
    at = 0
    for index, each in enumerate(said.inputs):
        path = f"inputs[{index}]"
        place = place_of(each.parameters, f"{path}.parameters")
        tensor, size = _input(each, place, rest[at:], path, memory, tenant)
        inputs.append(tensor)
        at += size
        if place is not None:
            places.append(place)
    if at != len(rest):
        said_ = f"The body has {len(rest) - at} bytes behind its JSON that belong to no input."
        raise HeadraceError(Code.INVALID_REQUEST, said_)
    outputs = [
        wanted_output(each.name, each.parameters, f"outputs[{index}].parameters")
        for index, each in enumerate(said.outputs)
    ]
    return asked(model, version, said.id, inputs, outputs, said.parameters, places)


def json_size(header: str | None, body: bytes) -> int | None:
    """What ``Inference-Header-Content-Length`` says, None if it is not there. Raises ``INVALID_REQUEST``."""
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) <= 15):
        raise refuse("Inference-Header-Content-Length", "must be a whole number")
    size = int(header)
    if size > len(body):
        said = f"is {size}, and the body has only {len(body)} bytes"
        raise refuse("Inference-Header-Content-Length", said)
    return size


def _read(data: memoryview) -> InferBody:
    try:
        return _decode(data)
    except msgspec.ValidationError as complaint:
        raise invalid_request(complaint) from None
    except COMPLAINTS as complaint:
        raise invalid_json(complaint) from None


def _input(
    each: InputBody, place: Place | None, rest: memoryview, path: str, memory: Memory, tenant: str
) -> tuple[Tensor, int]:
    """A tensor, and how many bytes of the rest of the body it took."""
    size = each.parameters.binary_data_size
    data = memoryview(each.data)
    has_json = data not in _NO_DATA
    if (place is not None) + (size is not None) + has_json != 1:
        said = "must have its data in one of `data`, `binary_data_size` and shared memory"
        raise refuse(path, said)
    if place is not None:
        tensor = shared_tensor(each.name, each.datatype, each.shape, place, memory, tenant, path)
        return tensor, 0
    datatype = known_datatype(each.datatype, path)
    shape = checked_shape(each.shape, path)
    if size is None:
        return from_json(each.name, datatype, shape, data, path), 0
    if not 0 <= size <= len(rest):
        said = f"is {size}, and {len(rest)} bytes are left of the body"
        raise refuse(f"{path}.parameters.binary_data_size", said)
    return tensor_of(each.name, datatype, shape, rest[:size], path), size
