"""Requests that leave no log, tensors and embeddings, have what was done for them in their traces."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests import onnx_models
from tests.kill.arena import free_port
from tests.tracing.arena import Collector, Server, Upstream, answering, collecting

from headrace.protocols.grpc import open_inference_pb2 as pb

MODELS = """engine = "onnx"
source = "file:{folder}/m.onnx"
[[models]]
name = "vectors"
engine = "openai"
[[models.replicas]]
url = "{upstream}"
"""


class Mill:
    """A server that records everything, its collector, and where it speaks gRPC."""

    def __init__(self, folder: Path, collector: Collector, upstream: Upstream) -> None:
        port = free_port()
        onnx_models.identity(folder / "m.onnx")
        models = MODELS.format(folder=folder, upstream=upstream.url)
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        self.server = Server(folder, models, environment, f"grpc_port = {port}")
        self.collector = collector
        self.address = f"127.0.0.1:{port}"

    def post(self, path: str, headers: dict[str, str], body: Any) -> int:
        url = self.server.url + path
        return httpx.post(url, headers=headers, json=body, timeout=30).status_code


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    with collecting() as collector, answering() as upstream:
        made = Mill(tmp_path_factory.mktemp("tensors"), collector, upstream)
        made.server.start()
        yield made
        made.server.end()


def trace() -> tuple[str, dict[str, str]]:
    """A client's trace: its id, its header."""
    number = secrets.token_hex(16)
    return number, {"traceparent": f"00-{number}-{secrets.token_hex(8)}-01"}


def tensor(length: int = 4) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, length], "data": [0.5] * length}


def test_an_inference_over_http_has_the_run_within_the_request(mill: Mill) -> None:
    number, headers = trace()
    assert mill.post("/v2/models/m/infer", headers, {"inputs": [tensor()]}) == 200
    request, work = mill.collector.trace(number, 2)
    assert (request.kind, request.name) == ("server", "POST /v2/models/{model:path}/infer")
    assert (work.kind, work.name, work.parent) == ("internal", "infer m", request.id)
    assert work.attributes == {"headrace.model": "m", "headrace.model.version": "1"}
    assert request.start <= work.start <= work.end <= request.end


def test_one_that_its_client_got_wrong_says_so_and_is_no_fault(mill: Mill) -> None:
    number, headers = trace()
    assert mill.post("/v2/models/m/infer", headers, {"inputs": [tensor(3)]}) == 400
    _, work = mill.collector.trace(number, 2)
    assert (work.attributes, work.failed) == ({"error.type": "invalid_request"}, False)


def test_an_inference_over_grpc_has_it_too(mill: Mill) -> None:
    number, headers = trace()
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    asked = pb.ModelInferRequest(model_name="m", inputs=[given], raw_input_contents=[bytes(16)])
    with grpc.insecure_channel(mill.address) as channel:
        infer: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
        )
        infer(asked, metadata=tuple(headers.items()), timeout=30)
    call, work = mill.collector.trace(number, 2)
    assert call.attributes["rpc.method"] == "inference.GRPCInferenceService/ModelInfer"
    assert (work.name, work.parent) == ("infer m", call.id)


def test_embeddings_have_theirs_with_what_they_used(mill: Mill) -> None:
    number, headers = trace()
    body = {"model": "vectors", "input": "The mill turns."}
    assert mill.post("/v1/embeddings", headers, body) == 200
    request, work = mill.collector.trace(number, 2)
    assert (work.kind, work.name, work.parent) == ("internal", "embeddings vectors", request.id)
    assert work.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "vectors",
        "gen_ai.usage.input_tokens": 7,
    }
