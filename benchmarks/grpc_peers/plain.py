"""The plainest servicer: reads a piece, yields a message."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.grpc_peers.upstream import Upstream
from headrace.protocols.grpc import headrace_pb2 as pb


class Inference:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def stream_infer(self, request: pb.StreamInferRequest, _: Any) -> AsyncIterator[pb.Event]:
        generation_id = uuid.uuid4().hex
        asked, seq = request.infer, 0
        async for text in self._upstream.texts(asked.prompt, asked.max_tokens):
            seq += 1
            yield pb.Event(
                seq=seq,
                timestamp=time.time(),
                generation_id=generation_id,
                token=pb.Token(text=text),
            )
        yield pb.Event(
            seq=seq + 1,
            timestamp=time.time(),
            generation_id=generation_id,
            finish=pb.Finish(reason="stop", usage=pb.Usage(completion_tokens=seq)),
        )


def handler(upstream: Upstream) -> grpc.GenericRpcHandler:
    method = grpc.unary_stream_rpc_method_handler(
        Inference(upstream).stream_infer,
        request_deserializer=pb.StreamInferRequest.FromString,
        response_serializer=pb.Event.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "headrace.v1.InferenceService", {"StreamInfer": method}
    )


def message(prompt: str, tokens: int) -> bytes:
    infer = pb.InferRequest(prompt=prompt, max_tokens=tokens)
    return pb.StreamInferRequest(infer=infer).SerializeToString()
