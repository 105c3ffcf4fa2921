"""Answers over gRPC, gRPC-Web and Connect leave no reference cycles of ours behind either."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from headrace.protocols.grpc import headrace_pb2 as pb
from tests.storm.arena import Watched, free_port, traced
from tests.storm.storms import quiet

SCRIPT = """
[[scripts]]
when = "mill"
tokens = ["The "]
hang_after = 1
[[scripts]]
tokens = ["The ", "mill ", "turns ", "slowly. "]
delay_ms = 1
"""
SERVER = """
grpc_port = {port}
[[models]]
name = "near"
engine = "scripted"
script = "SCRIPT"
"""
SERVICE = "/headrace.v1.InferenceService/"
REQUESTS = 100
NEARLY_NONE = 20
"""Objects, of all requests together: what the libraries leave now and then."""


@pytest.fixture(scope="module", params=[False, True], ids=["", "traced"])
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Watched, int]]:
    """A server that collects no garbage by itself, and its gRPC port."""
    port = free_port()
    folder = tmp_path_factory.mktemp("cycles")
    models = SERVER.format(port=port)
    with traced(request.param) as environment:
        server = Watched(folder, "front", models, "--no-gc", script=SCRIPT, environment=environment)
        try:
            server.wait_ready()
            yield server, port
        finally:
            server.stop()


def over_grpc(server: Watched, port: int, count: int) -> None:
    """Whole answers, streams, refusals, and clients that leave."""
    stream = pb.StreamInferRequest(infer=pb.InferRequest(prompt="Hi")).SerializeToString()
    hangs = pb.StreamInferRequest(infer=pb.InferRequest(prompt="mill")).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer: Any = channel.unary_unary(SERVICE + "Infer")
        stream_infer: Any = channel.unary_stream(SERVICE + "StreamInfer")
        converse: Any = channel.stream_stream(SERVICE + "Converse")
        for _ in range(count):
            infer(pb.InferRequest(prompt="Hi").SerializeToString())
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                infer(pb.InferRequest(prompt="Hi", model="none").SerializeToString())
            assert len(list(stream_infer(stream))) >= 5
            asked = pb.ConverseRequest(infer=pb.InferRequest(prompt="Hi")).SerializeToString()
            assert len(list(converse(iter([asked])))) >= 5
            left = stream_infer(hangs)
            next(left)
            left.cancel()


def over_http(server: Watched, port: int, count: int) -> None:
    stream = pb.StreamInferRequest(infer=pb.InferRequest(prompt="Hi")).SerializeToString()
    enveloped = b"\0" + len(stream).to_bytes(4, "big") + stream
    ways = (
        ("StreamInfer", "application/grpc-web", enveloped),
        ("StreamInfer", "application/connect+proto", enveloped),
        ("Infer", "application/json", b'{"prompt": "Hi"}'),
        ("Infer", "application/json", b'{"prompt": "Hi", "model": "none"}'),
    )
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for method, kind, body in ways * count:
        headers = {"Content-Type": kind, "grpc-timeout": "9S", "connect-timeout-ms": "9000"}
        connection.request("POST", SERVICE + method, body, headers)
        assert connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("ask", [over_grpc, over_http])
def test_answers_leave_no_reference_cycles(front: tuple[Watched, int], ask: Any) -> None:
    server, port = front
    ask(server, port, 3)
    quiet(server)
    server.garbage()

    ask(server, port, REQUESTS)
    quiet(server)

    found = server.garbage()
    # grpc itself leaves five objects a call.
    ours = {kind: count for kind, count in found.items() if "headrace" in kind}
    assert sum(ours.values()) <= NEARLY_NONE, found
