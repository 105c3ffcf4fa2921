"""The answer of an inference over HTTP: JSON, and behind it the bytes of those outputs that were asked for as bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from headrace.protocols.call import JSON, Call
from headrace.protocols.errors import Header
from headrace.protocols.kserve.asked import place_parameters
from headrace.protocols.kserve.compression import coding_asked_for, compressed
from headrace.protocols.kserve.datatypes import bytes_of
from headrace.protocols.kserve.json_data import to_json
from headrace.protocols.kserve.running import Answered, Output

LENGTH = b"inference-header-content-length"
_BYTES: Header = (b"content-type", b"application/octet-stream")
_encode = msgspec.json.Encoder().encode


async def respond(call: Call, answered: Answered) -> None:
    """Raises ``INVALID_REQUEST`` for an output that JSON has no form for."""
    pieces: list[memoryview] = []
    response = answered.response
    said: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": [_output(output, pieces) for output in answered.outputs],
    }
    if response.id:
        said["id"] = response.id
    head = _encode(said)
    headers = [_BYTES, (LENGTH, b"%d" % len(head))] if pieces else [JSON]
    coding = coding_asked_for(call.header(b"accept-encoding"))
    if coding is not None:
        body = await asyncio.to_thread(compressed, [head, *pieces], coding)
        call.respond(200, [*headers, (b"content-encoding", coding.encode())], body)
    elif pieces:
        call.respond_parts(200, headers, [head, *pieces])
    else:
        call.respond(200, headers, head)


def _output(output: Output, pieces: list[memoryview]) -> dict[str, Any]:
    tensor, wanted = output
    said: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
    }
    if wanted.place is not None:
        said["parameters"] = place_parameters(wanted.place)
    elif wanted.binary:
        data = bytes_of(tensor)
        pieces.append(data)
        said["parameters"] = {"binary_data_size": len(data)}
    else:
        said["data"] = to_json(tensor)
    return said
