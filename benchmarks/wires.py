"""The servers and wires of ``benchmarks.protocols``: how each is started, and asked for a stream of tokens.

Whatever the wire, a client asks for the same prompt and so many tokens, and is a native program that only
counts. Over HTTP/1.1 a stream has a connection of its own; over HTTP/2 streams share ``CHANNELS`` of them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.child import Child, free_port
from benchmarks.headrace import KEY, MOCK_MODEL, Server
from benchmarks.load import CallLoad, Load, Mock, Running, chat_body
from headrace.protocols.grpc import headrace_pb2 as pb

REPOSITORY = Path(__file__).parents[1]
CHANNELS = 4
GRPC = "application/grpc"
GRPC_WEB = "application/grpc-web+proto"
PROMPT: str = chat_body(stream=True, tokens=0)["messages"][1]["content"]
STREAM_INFER = "/headrace.v1.InferenceService/StreamInfer"

Options = Mapping[str, float]


class Wire(NamedTuple):
    """One way to ask a server. ``ask``: folder, tokens of an answer, options of the load generator."""

    name: str
    child: Child
    ask: Callable[[Path, int, Options], Running]


class GrpcPeer(NamedTuple):
    """``stamped``: the text, in which the mock's stamps are, comes back."""

    title: str
    path: str
    stamped: bool = True


GRPC_PEERS = {
    "plain": GrpcPeer("plain grpc.aio", STREAM_INFER),
    "vllm": GrpcPeer("vLLM-style", "/vllm.grpc.engine.VllmEngine/Generate", stamped=False),
    "triton": GrpcPeer("Triton-style", "/inference.GRPCInferenceService/ModelStreamInfer"),
}


def direct(mock: Mock) -> Wire:
    """The engine itself, over its own SSE."""
    return Wire("engine", mock.child, partial(_ask_engine, mock.port))


def headrace(folder: Path, mock_port: int) -> list[Wire]:
    """One server, its four wires."""
    home = folder / "headrace"
    home.mkdir()
    grpc_port = free_port()
    server = Server(home, MOCK_MODEL.format(mock_port=mock_port), grpc_port=grpc_port)
    try:
        server.await_ready()
    except RuntimeError:
        server.child.stop()
        raise
    port, child = server.port, server.child
    return [
        Wire("SSE", child, partial(_ask_http, port, "text/event-stream")),
        Wire("NDJSON", child, partial(_ask_http, port, "application/x-ndjson")),
        Wire("gRPC", child, partial(_ask_rpc, grpc_port, GRPC)),
        Wire("gRPC-Web", child, partial(_ask_rpc, port, GRPC_WEB)),
    ]


def grpc_peer(name: str, folder: Path, mock_port: int) -> Wire:
    """One of ``benchmarks.grpc_peers``, running."""
    peer, port = GRPC_PEERS[name], free_port()
    command = [*_command(name), "serve", str(port), str(mock_port)]
    child = Child(command, folder / f"grpc-{name}.log", env=_environment(), cwd=REPOSITORY)
    try:
        child.await_port(port, 30)
    except RuntimeError:
        child.stop()
        raise
    return Wire(peer.title, child, partial(_ask_peer, name, port))


def _ask_engine(port: int, folder: Path, tokens: int, options: Options) -> Running:
    body = {"model": "mock", "prompt": PROMPT, "max_tokens": tokens, "stream": True}
    return Load(folder, port, [body], (), options, "/v1/completions")


def _ask_http(port: int, accept: str, folder: Path, tokens: int, options: Options) -> Running:
    body: dict[str, Any] = {"model": "mock", "prompt": PROMPT, "max_tokens": tokens}
    headers = (f"authorization: Bearer {KEY}", f"accept: {accept}")
    return Load(folder, port, [body], headers, options, "/v1/stream_infer")


def _ask_rpc(port: int, kind: str, folder: Path, tokens: int, options: Options) -> Running:
    infer = pb.InferRequest(model="mock", prompt=PROMPT, max_tokens=tokens)
    message = pb.StreamInferRequest(infer=infer).SerializeToString()
    headers = (f"content-type: {kind}", "te: trailers", f"authorization: Bearer {KEY}")
    shared = {**options, "channels": CHANNELS}
    return CallLoad(folder, port, message, headers, shared, STREAM_INFER, tokens=tokens)


def _ask_peer(name: str, port: int, folder: Path, tokens: int, options: Options) -> Running:
    peer, message = GRPC_PEERS[name], _message(name, tokens)
    headers = (f"content-type: {GRPC}", "te: trailers")
    shared = {**options, "channels": CHANNELS}
    return CallLoad(
        folder, port, message, headers, shared, peer.path, tokens=tokens, stamped=peer.stamped
    )


@cache
def _message(name: str, tokens: int) -> bytes:
    """What asks a peer, made where its messages are known."""
    return subprocess.run(
        [*_command(name), "message", str(tokens)],
        input=PROMPT.encode(),
        capture_output=True,
        check=True,
        env={**os.environ, **_environment()},
        cwd=REPOSITORY,
    ).stdout


def _command(name: str) -> list[str]:
    python = peers.environment(peers.GRPC) / "bin/python"
    return [str(python), "-m", "benchmarks.grpc_peers", name]


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(REPOSITORY / "src")}
