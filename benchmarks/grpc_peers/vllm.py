"""As vLLM serves gRPC (``vllm.entrypoints.grpc_server`` with its servicer from ``smg-grpc-servicer``): the engine's
task puts outputs into a collector of the request, ``generate`` takes them out, the servicer makes a chunk of each
and keeps all ids for the message at the end.

Two differences: its engine is the upstream here, and its collector merges what has not been taken yet; here each
token stays a message, as everywhere in this benchmark.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from smg_grpc_proto.generated import vllm_engine_pb2 as pb

from benchmarks.grpc_peers.upstream import Upstream


@dataclass
class Completion:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_tokens: int
    outputs: list[Completion]
    finished: bool


class Collector:
    """The outputs of one request. Bounded by ``max_tokens``."""

    def __init__(self) -> None:
        self._outputs: deque[RequestOutput] = deque()
        self._ready = asyncio.Event()

    def put(self, output: RequestOutput) -> None:
        self._outputs.append(output)
        self._ready.set()

    async def get(self) -> RequestOutput:
        while not self._outputs:
            self._ready.clear()
            await self._ready.wait()
        return self._outputs.popleft()


class Engine:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def generate(
        self, prompt: str, max_tokens: int, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        collector = Collector()
        running = asyncio.create_task(self._run(prompt, max_tokens, request_id, collector))
        try:
            while True:
                output = await collector.get()
                yield output
                if output.finished:
                    return
        finally:
            running.cancel()

    async def _run(
        self, prompt: str, max_tokens: int, request_id: str, collector: Collector
    ) -> None:
        count = 0
        async for text in self._upstream.texts(prompt, max_tokens):
            count += 1
            completion = Completion(0, text, [count])
            collector.put(RequestOutput(request_id, 128, [completion], finished=False))
        last = Completion(0, "", [], "stop")
        collector.put(RequestOutput(request_id, 128, [last], finished=True))


class Servicer:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(
        self, request: pb.GenerateRequest, _: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        all_ids: list[int] = []
        request_id = request.request_id or uuid.uuid4().hex
        max_tokens = request.sampling_params.max_tokens
        async for output in self._engine.generate(request.text, max_tokens, request_id):
            completion = output.outputs[0]
            if completion.token_ids:
                yield pb.GenerateResponse(
                    chunk=pb.GenerateStreamChunk(
                        token_ids=completion.token_ids,
                        prompt_tokens=output.prompt_tokens,
                        completion_tokens=len(completion.token_ids),
                        cached_tokens=0,
                        index=completion.index,
                    )
                )
                all_ids.extend(completion.token_ids)
            if output.finished:
                yield pb.GenerateResponse(
                    complete=pb.GenerateComplete(
                        output_ids=all_ids,
                        finish_reason=completion.finish_reason,
                        prompt_tokens=output.prompt_tokens,
                        completion_tokens=len(all_ids),
                    )
                )


def handler(upstream: Upstream) -> grpc.GenericRpcHandler:
    method = grpc.unary_stream_rpc_method_handler(
        Servicer(Engine(upstream)).generate,
        request_deserializer=pb.GenerateRequest.FromString,
        response_serializer=pb.GenerateResponse.SerializeToString,
    )
    service = pb.DESCRIPTOR.services_by_name["VllmEngine"].full_name
    return grpc.method_handlers_generic_handler(service, {"Generate": method})


def message(prompt: str, tokens: int) -> bytes:
    sampling = pb.SamplingParams(max_tokens=tokens, temperature=0.7)
    request = pb.GenerateRequest(text=prompt, sampling_params=sampling, stream=True)
    serialized: bytes = request.SerializeToString()
    return serialized
