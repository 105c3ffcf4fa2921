"""What is another tenant's does not exist: the same 404 as for what never was, whatever is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.grpc import headrace_pb2 as pb
from tests.whole import Whole

Run = Callable[..., Any]
TENANTS = """
[[tenants]]
name = "alpha"
keys = ["sk-alpha", "sk-alpha-2"]

[[tenants]]
name = "beta"
keys = ["sk-beta"]
"""
ALPHA, BETA = {"authorization": "Bearer sk-alpha"}, {"authorization": "Bearer sk-beta"}
CHAT = "/v1/chat/completions"
NOBODYS = "01M8AMS68SQD6SFHQQYRP72VXZ"
PROMPT = {"role": "user", "content": "x"}
ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/v1/generations/gen_{}", None),
    ("GET", "/v1/generations/gen_{}/events", None),
    ("GET", "/v1/generations/chatcmpl-{}/events?format=openai", None),
    ("POST", "/v1/generations/gen_{}/prompts", PROMPT),
    ("POST", "/v1/generations/gen_{}/token", None),
    ("POST", "/v1/generations/gen_{}/cancel", None),
    ("GET", "/v1/responses/resp_{}", None),
    ("GET", "/v1/responses/resp_{}?stream=true", None),
    ("DELETE", "/v1/responses/resp_{}", None),
    ("POST", "/v1/responses/resp_{}/cancel", None),
    ("GET", "/v1/responses/resp_{}/input_items", None),
]


def test_every_route_with_an_id_is_asked_here() -> None:
    nobody: Any = None
    routes = Api(nobody, ApiOptions()).routes
    with_id = {
        (one.method, one.path)
        for one in routes
        if one.path.startswith("/v1") and "{id}" in one.path
    }
    asked = {(method, path.partition("?")[0]) for method, path, _ in ASKED}
    for method, path in with_id:
        before, _, after = path.partition("{id}")
        assert any(
            verb == method and one.startswith(before) and one.endswith("}" + after)
            for verb, one in asked
        ), path


async def begun(client: httpx.AsyncClient, text: str, **fields: Any) -> str:
    """The ULID of a generation of alpha's."""
    body = {"model": "echo", "input": text, "background": True, **fields}
    answer = await client.post("/v1/responses", json=body, headers=ALPHA)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"]).removeprefix("resp_")


@pytest.mark.parametrize("text", ["hang", "Hi"])
def test_over_http(run: Run, tmp_path: Path, text: str) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(more=TENANTS) as app:
            url = f"http://{app.front.address}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                theirs = await begun(client, text)
                for method, path, body in ASKED:
                    told = []
                    for ulid in (theirs, NOBODYS):
                        answer = await client.request(
                            method, path.format(ulid), json=body, headers=BETA
                        )
                        told.append((answer.status_code, answer.text.replace(ulid, "ID")))
                    assert told[0] == told[1], path
                    assert told[0][0] == 404, path
                resumed = BETA | {"last-event-id": "0", "x-generation-id": f"gen_{theirs}"}
                assert (await client.post(CHAT, headers=resumed)).status_code == 404
                told = []
                for ulid in (theirs, NOBODYS):
                    after = f"resp_{ulid}"
                    body = {"model": "echo", "input": "x", "previous_response_id": after}
                    answer = await client.post("/v1/responses", json=body, headers=BETA)
                    told.append((answer.status_code, answer.text.replace(ulid, "ID")))
                assert told[0] == told[1]
                assert told[0][0] == 400
                listed = await client.get("/v1/generations", headers=BETA)
                assert listed.json()["data"] == []
                mine = {"authorization": "Bearer sk-alpha-2"}
                for path in (f"/v1/generations/gen_{theirs}", f"/v1/responses/resp_{theirs}"):
                    assert (await client.get(path, headers=mine)).status_code == 200
                cancelled = f"/v1/responses/resp_{theirs}/cancel"
                await client.post(cancelled, headers=ALPHA)

    run(main())


def test_an_abort_token_and_a_session_are_a_tenants_own(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(more=TENANTS) as app:
            url = f"http://{app.front.address}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                said = {"x-abort-token": "t", "x-session-id": "s", "x-on-disconnect": "continue"}
                body = {
                    "model": "echo",
                    "messages": [{"role": "user", "content": "hang"}],
                    "stream": True,
                }
                async with client.stream("POST", CHAT, json=body, headers=ALPHA | said) as answer:
                    await anext(answer.aiter_lines())
                    for headers, count in ((BETA, 0), (ALPHA, 1)):
                        listed = await client.get("/v1/generations?session_id=s", headers=headers)
                        assert len(listed.json()["data"]) == count
                        aborted = await client.post(
                            "/v1/abort", json={"token": "t"}, headers=headers
                        )
                        assert aborted.json() == {"aborted": count}

    run(main())


def test_over_grpc(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running("grpc_port = 0", TENANTS) as app:
            url = f"http://{app.front.address}"
            async with (
                httpx.AsyncClient(base_url=url, timeout=30) as client,
                grpc.aio.insecure_channel(app.grpc.address) as channel,
            ):
                theirs = await begun(client, "hang")
                told = []
                for ulid in (theirs, NOBODYS):
                    resume = pb.Resume(generation_id=f"gen_{ulid}")
                    call = channel.unary_stream("/headrace.v1.InferenceService/StreamInfer")(
                        pb.StreamInferRequest(resume=resume).SerializeToString(),
                        metadata=tuple(BETA.items()),
                    )
                    with pytest.raises(grpc.aio.AioRpcError) as error:
                        await asyncio.wait_for(call.read(), 20)
                    told.append(
                        (error.value.code(), str(error.value.details()).replace(ulid, "ID"))
                    )
                assert told[0] == told[1]
                assert told[0][0] is grpc.StatusCode.NOT_FOUND

    run(main())
