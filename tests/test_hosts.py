"""A server without keys answers to names of its own machine, whatever is spoken: no page may reach it by another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.hosts import Hosts
from tests.whole import Whole

Run = Callable[..., Any]
INFER = "/headrace.v1.InferenceService/Infer"
ASKED = pb.InferRequest(prompt="Hi").SerializeToString()
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hi."}]}
HERE = (
    "localhost",
    "LocalHost:8000",
    "127.0.0.1:1",
    "127.9.9.9",
    "[::1]:8000",
    "a.localhost",
    "localhost.",
    "localhost:",
    "[::ffff:127.0.0.1]:80",
)
ELSEWHERE = (
    "evil.example:8000",
    "localhost.evil.example",
    "10.0.0.1",
    "0.0.0.0:8000",
    "[::2]",
    "127.0.0.1.evil",
    "",
    ".localhost",
    "127.0.0.1..",
    "localhost:80@evil.example",
    "127.0.0.1]evil.example",
    "[::1]evil.example",
    "evil.example#.localhost",
    "localhost%00.evil.example",
)


@pytest.mark.parametrize("name", HERE)
def test_names_of_this_machine_are_not_foreign(name: str) -> None:
    assert Hosts(()).foreign(name.encode()) is None


@pytest.mark.parametrize("name", ELSEWHERE)
def test_all_others_are_foreign_unless_they_are_allowed(name: str) -> None:
    assert Hosts(()).foreign(name.encode()) is not None
    assert Hosts(("Evil.example",)).foreign(b"evil.EXAMPLE:8000") is None


def client(app: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{app.front.address}", timeout=30, **options)


async def asked(talking: httpx.AsyncClient, host: str, **headers: str) -> int:
    said = {"host": host} | headers
    return (await talking.post("/v1/chat/completions", json=CHAT, headers=said)).status_code


def test_a_foreign_name_is_refused_and_told_what_to_do(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running() as app, client(app) as talking:
            for _ in range(2):  # heads that are alike share what was concluded of them
                assert await asked(talking, "evil.example") == 403
                assert await asked(talking, "localhost:9") == 200
            for path in ("/v1/models", "/metrics", "/admin/keys"):
                refused = await talking.get(path, headers={"host": "evil.example:8000"})
                assert refused.status_code == 403
                error = refused.json()["error"]
                assert error["code"] == "forbidden"
                assert "'evil.example'" in error["message"]
                assert "--allowed-host" in error["message"]
            assert (await talking.get("/livez", headers={"host": "pod"})).status_code == 200
            anthropic = CHAT | {"max_tokens": 5}
            said = await talking.post("/v1/messages", json=anthropic, headers={"host": "e.test"})
            assert said.json()["error"]["type"] == "permission_error"

    run(main())


def test_a_name_that_is_allowed_and_any_name_with_a_key_are_good(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running('allowed_host = "llm.example"') as app, client(app) as talking:
            assert await asked(talking, "llm.example") == 200
            assert await asked(talking, "evil.example") == 403
            _, key = await app.registry.create_key("default", ("infer",), "", None, "")
            assert await asked(talking, "evil.example") == 401
            assert await asked(talking, "evil.example", authorization=f"Bearer {key}") == 200
        for open_to_all in ('allowed_host = "*"', 'host = "0.0.0.0"\nallow_open = true'):
            async with Whole(tmp_path / "other").running(open_to_all) as app:
                url = f"http://127.0.0.1:{app.front.port}"
                async with httpx.AsyncClient(base_url=url, timeout=30) as talking:
                    assert await asked(talking, "evil.example") == 200

    run(main())


@pytest.mark.parametrize(
    ("server", "status"),
    [
        ("", 403),
        ('allowed_host = "evil.example"', 200),
        ('allowed_host = "*"', 200),
        ('ops_host = "0.0.0.0"', 200),  # a cluster's scraper, by whatever address
        ('api_key = ["k"]', 403),  # this port has no keys
    ],
)
def test_the_figures_of_the_operations_port_are_for_names_of_this_machine(
    run: Run, tmp_path: Path, server: str, status: int
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(f"ops_port = 0\n{server}") as app:
            _, port = app.operations.address
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as talking:
                said = {"host": "evil.example"}
                assert (await talking.get("/metrics")).status_code == 200
                assert (await talking.get("/metrics", headers=said)).status_code == status
                assert (await talking.get("/livez", headers=said)).status_code == 200

    run(main())


def test_a_unix_socket_is_reached_by_any_name(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        whole = Whole(tmp_path)
        async with whole.running(f'uds = "{path}"\ngrpc_port = 0') as app:
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://any.test"
            ) as talking:
                assert await asked(talking, "any.test") == 200
            assert await over_grpc(app, "evil.test") == "PERMISSION_DENIED"

    run(main())


async def over_http_2(port: int, authority: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    frames = H2Connection()
    frames.initiate_connection()
    fields = [(":method", "GET"), (":path", "/v1/models"), (":scheme", "http")]
    frames.send_headers(1, [*fields, (":authority", authority)], end_stream=True)
    writer.write(frames.data_to_send())
    status, body, over = 0, b"", False
    while not over:
        for event in frames.receive_data(await reader.read(65_536)):
            if isinstance(event, ResponseReceived):
                status = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                body += event.data
            over = over or isinstance(event, StreamEnded)
    writer.close()
    return status, body


async def over_grpc(app: Any, authority: str) -> str:
    options = [("grpc.default_authority", authority)]
    async with grpc.aio.insecure_channel(app.grpc.address, options=options) as channel:
        call = channel.unary_unary(INFER)(ASKED)
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            assert "--allowed-host" in str(await call.details())
        return str(code.name)


def test_every_protocol_refuses_it_in_its_own_way(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running("grpc_port = 0") as app:
            assert (await over_http_2(app.front.port, "localhost:1"))[0] == 200
            status, body = await over_http_2(app.front.port, "evil.example")
            assert (status, b"--allowed-host" in body) == (403, True)
            for _ in range(2):
                assert await over_grpc(app, "evil.example") == "PERMISSION_DENIED"
                assert await over_grpc(app, "localhost:1") == "OK"
            async with client(app) as talking:
                foreign = {"host": "evil.example"}
                kind = {"content-type": "application/json"}
                said = await talking.post(INFER, content=b"{}", headers=foreign | kind)
                assert (said.status_code, said.json()["code"]) == (403, "permission_denied")
                kind = {"content-type": "application/grpc-web+proto"}
                body = b"\0" + len(ASKED).to_bytes(4, "big") + ASKED
                said = await talking.post(INFER, content=body, headers=foreign | kind)
                assert b"grpc-status: 7" in said.content or said.headers["grpc-status"] == "7"

    run(main())
