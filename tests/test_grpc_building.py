"""gRPC in the whole server: it is imported only where it is asked for, and it ends as a server should."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.app import App
from headrace.cli.options import loaded
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.settings import SettingsError
from tests.whole import ECHO, serving, settings_file

SCRIPTS = [
    {"when": "hang", "tokens": ["a", "b"], "hang_after": 1},
    {"when": "slowly", "tokens": ["a"] * 5, "delay_ms": 100},
    {"tokens": ["Hel", "lo"]},
]
PATH = "/headrace.v1.InferenceService/"


def configured(
    folder: Path, server: str = "grpc_port = 0", grace: float = 0.0, store: str = "memory:"
):
    (folder / "script.json").write_text(json.dumps({"scripts": SCRIPTS}))
    config = settings_file(folder, ECHO, server=server, store=store, grace_s=grace)
    return loaded(str(config), {}).settings


@asynccontextmanager
async def running(settings: Any) -> AsyncIterator[tuple[App, Any]]:
    """The server, and a channel to it."""
    app = App(settings)
    async with serving(app):
        assert app.grpc is not None
        async with grpc.aio.insecure_channel(app.grpc.address) as channel:
            yield app, channel


def streamed(channel: Any, prompt: str, metadata: Any = None) -> Any:
    call = channel.unary_stream(
        PATH + "StreamInfer",
        request_serializer=pb.StreamInferRequest.SerializeToString,
        response_deserializer=pb.Event.FromString,
    )
    return call(pb.StreamInferRequest(infer=pb.InferRequest(prompt=prompt)), metadata=metadata)


def infer(channel: Any, prompt: str) -> Any:
    call = channel.unary_unary(
        PATH + "Infer",
        request_serializer=pb.InferRequest.SerializeToString,
        response_deserializer=pb.InferResponse.FromString,
    )
    return call(pb.InferRequest(prompt=prompt))


async def until_token(call: Any) -> Any:
    while (event := await call.read()).WhichOneof("payload") != "token":
        pass
    return event


async def until_refused(channel: Any) -> grpc.aio.AioRpcError:
    """How a call fails, once the server has heard that it is to stop."""
    while True:
        try:
            await infer(channel, "Hi")
        except grpc.aio.AioRpcError as error:
            return error


def test_a_generation_over_grpc_is_the_same_log_as_over_http(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    async def main() -> None:
        async with running(configured(tmp_path)) as (app, channel):
            events = [event async for event in streamed(channel, "Hi")]
            url = f"http://{app.front.address}/v1/generations/{events[0].generation_id}/events"
            async with httpx.AsyncClient() as client:
                answer = await client.get(url, headers={"accept": "application/x-ndjson"})
            logged = [json.loads(line) for line in answer.text.splitlines()]
            assert [event["seq"] for event in logged] == [event.seq for event in events]
            assert [event["timestamp"] for event in logged] == [e.timestamp for e in events]
            assert events[-1].finish.reason == "stop"

    run(main())


def test_cancelling_reaches_the_engine(run: Callable[..., Any], tmp_path: Path) -> None:
    async def main() -> None:
        async with running(configured(tmp_path)) as (app, channel):
            ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            app.topics.subscribe(
                "generation",
                lambda news: news["state"] == "ended" and ended.set_result(news["end"]),
            )
            call = streamed(channel, "hang")
            await until_token(call)
            call.cancel()
            assert (await ended).code == "cancelled"
            engine = app.flows[0].model.replicas[0].engine
            assert engine.running == 0

    run(main())


def test_a_server_that_stops_lets_streams_finish_and_refuses_new_work(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    async def main() -> None:
        async with running(configured(tmp_path, grace=30)) as (app, channel):
            call = streamed(channel, "slowly")
            await until_token(call)
            app.stopping.set()
            refusal = await until_refused(channel)
            assert refusal.code() == grpc.StatusCode.UNAVAILABLE
            assert dict(refusal.trailing_metadata())["headrace-code"] == "shutting_down"
            kinds = []
            while (event := await call.read()) is not grpc.aio.EOF:
                kinds.append(event.WhichOneof("payload"))
            assert kinds == ["token"] * 4 + ["finish"]
            assert await call.code() == grpc.StatusCode.OK

    run(main())


@pytest.mark.parametrize("leaving", ["cancel", "continue"])
def test_after_the_limit_streams_end_with_where_to_read_on(
    run: Callable[..., Any], tmp_path: Path, leaving: str
) -> None:
    async def main() -> None:
        settings = configured(tmp_path, grace=0.1, store=f"sqlite:{tmp_path}/logs.db")
        async with running(settings) as (app, channel):
            call = streamed(channel, "hang", [("x-on-disconnect", leaving)])
            event = await until_token(call)
            app.stopping.set()
            last = await call.read()
            assert last.error.code == "interrupted"
            assert last.error.retryable
            resume = pb.Resume(generation_id=event.generation_id, after=event.seq)
            assert last.error.resume == resume
            # One that goes on after the start has no end in its log.
            assert last.seq == (0 if leaving == "continue" else event.seq + 1)
            assert await call.code() == grpc.StatusCode.UNAVAILABLE

    run(main())


def test_streams_on_the_http_port_end_the_same_way(run: Callable[..., Any], tmp_path: Path) -> None:
    start = pb.StreamInferRequest(infer=pb.InferRequest(prompt="hang")).SerializeToString()

    async def main() -> None:
        settings = configured(tmp_path, grace=0.1, store=f"sqlite:{tmp_path}/logs.db")
        async with running(settings) as (app, _), httpx.AsyncClient() as client:
            url = f"http://{app.front.address}{PATH}StreamInfer"
            headers = {"content-type": "application/grpc-web", "x-on-disconnect": "continue"}
            body = b"\0" + len(start).to_bytes(4, "big") + start
            async with client.stream("POST", url, content=body, headers=headers) as answer:
                pieces = answer.aiter_bytes()
                seen = await anext(pieces)
                app.stopping.set()
                async for piece in pieces:
                    seen += piece
            assert b"interrupted" in seen
            assert b"grpc-status: 14\r\n" in seen

    run(main())


def test_a_key_is_needed_where_other_machines_reach_the_port(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"server\.grpc_host: 0\.0\.0\.0 lets other machines in"
    ):
        App(configured(tmp_path, 'grpc_port = 0\ngrpc_host = "0.0.0.0"'))


def test_ports_differ(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"grpc_port: must differ from server\.ops_port"):
        configured(tmp_path, "grpc_port = 9001\nops_port = 9001")


def test_a_server_without_grpc_does_not_import_it() -> None:
    asked = (
        "import sys, headrace.app; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]


def test_a_start_that_fails_later_leaves_no_open_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configured(tmp_path, f"grpc_port = 0\nops_port = {port}")
        command = [sys.executable, "-m", "headrace", "serve"]
        command += ["--config", str(tmp_path / "headrace.toml")]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"Error: 127.0.0.1:{port} is taken by another process")


@pytest.mark.parametrize("missing", ["google.protobuf", "grpc_reflection"])
def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path, missing: str) -> None:
    configured(tmp_path)
    code = f"""
import sys
sys.modules[{missing!r}] = None
from headrace.cli.main import main
main(["serve", "--config", {str(tmp_path / "headrace.toml")!r}])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.returncode == 1
    assert "pip install 'headrace[grpc]'" in told.stderr
    assert "Traceback" not in told.stderr
