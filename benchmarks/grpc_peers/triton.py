"""As Triton serves a decoupled model: a stream of requests, each with any number of responses, which go through
one queue of the stream and carry the request's id; tensors lie in ``raw_output_contents``, and the last response of
a request is empty and says ``triton_final_response``."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from benchmarks.grpc_peers.upstream import Upstream

Responses = asyncio.Queue["pb.ModelStreamInferResponse | None"]


class Inference:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], _: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        responses: Responses = asyncio.Queue()
        reading = asyncio.create_task(self._read(requests, responses))
        try:
            while (response := await responses.get()) is not None:
                yield response
        finally:
            reading.cancel()

    async def _read(
        self, requests: AsyncIterator[pb.ModelInferRequest], responses: Responses
    ) -> None:
        async with asyncio.TaskGroup() as running:
            async for request in requests:
                running.create_task(self._execute(request, responses))
        await responses.put(None)

    async def _execute(self, request: pb.ModelInferRequest, responses: Responses) -> None:
        prompt = _texts(request.raw_input_contents[0])[0]
        max_tokens = request.parameters["max_tokens"].int64_param
        async for text in self._upstream.texts(prompt, max_tokens):
            await responses.put(_response(request, text, final=False))
        await responses.put(_response(request, None, final=True))


def _response(
    request: pb.ModelInferRequest, text: str | None, *, final: bool
) -> pb.ModelStreamInferResponse:
    made = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    made.parameters["triton_final_response"].bool_param = final
    if text is not None:
        made.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        made.raw_output_contents.append(_tensor(text))
    return pb.ModelStreamInferResponse(infer_response=made)


def _tensor(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _texts(tensor: bytes) -> list[str]:
    found, at = [], 0
    while at < len(tensor):
        end = at + 4 + struct.unpack_from("<I", tensor, at)[0]
        found.append(tensor[at + 4 : end].decode())
        at = end
    return found


def handler(upstream: Upstream) -> grpc.GenericRpcHandler:
    method = grpc.stream_stream_rpc_method_handler(
        Inference(upstream).model_stream_infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelStreamInferResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelStreamInfer": method}
    )


def message(prompt: str, tokens: int) -> bytes:
    request = pb.ModelInferRequest(model_name="mock", id="1")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(_tensor(prompt))
    request.parameters["max_tokens"].int64_param = tokens
    serialized: bytes = request.SerializeToString()
    return serialized
