"""A thousand clients of every protocol die in the middle of an answer and come back: nobody misses a byte."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.app import App
from headrace.cli.options import loaded
from headrace.protocols.grpc import headrace_pb2 as pb

KILLS = 1000
"""All in all, the same number for every protocol."""
WORDS = ("The ", "mill ", "wheel ", "turns: ", "日本", "🦜 ", "é ", '"quoted"\n', "\u2028 ")
CONFIG = """
[server]
port = 0
grpc_port = 0
grpc_web = true
state_dir = "{folder}"
shutdown_grace_s = 0

[[models]]
name = "m"
engine = "scripted"
script = "{folder}/script.json"
"""
SCRIPT = {"tokens": WORDS, "repeat": 40, "delay_ms": 3, "prompt_tokens": 7}
STREAM = "/headrace.v1.InferenceService/StreamInfer"


class Place:
    """Where the server is, and what there is to read: ``generation`` is still running when reading begins."""

    def __init__(self, http: int, rpc: int, generation: str, chance: random.Random) -> None:
        self.http, self.rpc, self.generation, self.chance = http, rpc, generation, chance

    async def raw(self, head: str, body: bytes = b"", limit: int | None = None) -> bytes:
        """What a client has got of an answer when it dies after about ``limit`` bytes of it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http)
        try:
            writer.write(
                f"{head}host: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
            )
            await reader.readuntil(b"\r\n\r\n")
            if limit is None:
                return await reader.read(-1)
            got = b""
            while len(got) < limit and (data := await reader.read(limit - len(got))):
                got += data
            return got
        finally:
            writer.transport.abort()


Life = Callable[[Place, Any, int | None], Awaitable[tuple[list[Any], Any, bool]]]
"""One life of a client: where it reads on and after how many bytes it dies. What it got whole, where the next one
reads on, and whether that was the end."""


async def server_sent(
    place: Place, path: str, after: Any, limit: int | None
) -> tuple[list[Any], Any, bool]:
    """SSE: what came behind the last id is not kept, since it comes again."""
    head = f"GET {path.format(id=place.generation, after=after or 0)} HTTP/1.0\r\n"
    got = await place.raw(head, limit=limit)
    blocks = got.removeprefix(b"retry: 5000\n").split(b"\n\n")[:-1]
    kept: list[bytes] = []
    held: list[bytes] = []
    over = False
    for block in blocks:
        held.append(block)
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        if b"id" in fields:
            after = int(fields[b"id"])
            kept += held
            held = []
            over = b"[DONE]" in block or b"message_stop" in block or b'"finish"' in block
    return kept, after, over


async def native(place: Place, after: Any, limit: int | None) -> Any:
    return await server_sent(place, "/v1/generations/{id}/events?after={after}", after, limit)


async def openai(place: Place, after: Any, limit: int | None) -> Any:
    path = "/v1/generations/{id}/events?format=openai&after={after}"
    return await server_sent(place, path, after, limit)


async def anthropic(place: Place, after: Any, limit: int | None) -> Any:
    path = "/v1/generations/{id}/events?format=anthropic&after={after}"
    return await server_sent(place, path, after, limit)


async def responses(place: Place, after: Any, limit: int | None) -> Any:
    """By ``sequence_number``, which every message has: each counts by itself."""
    start = "" if after is None else f"&starting_after={after}"
    head = f"GET /v1/responses/{place.generation}?stream=true{start} HTTP/1.0\r\n"
    got = await place.raw(head, limit=limit)
    kept: list[Any] = []
    for block in got.removeprefix(b"retry: 5000\n").split(b"\n\n")[:-1]:
        data = block.partition(b"data: ")[2]
        if data == b"[DONE]":
            return kept, after, True
        kept.append(data)
        after = json.loads(data)["sequence_number"]
    return kept, after, False


async def lines(place: Place, after: Any, limit: int | None) -> Any:
    head = f"GET /v1/generations/{place.generation}/events?after={after or 0} HTTP/1.0\r\n"
    got = await place.raw(head + "accept: application/x-ndjson\r\n", limit=limit)
    kept = got.split(b"\n")[:-1]
    events = [json.loads(line) for line in kept]
    if events:
        after = events[-1]["seq"]
    return kept, after, bool(events) and events[-1]["type"] == "finish"


def resumed(place: Place, after: Any) -> bytes:
    resume = pb.Resume(generation_id=place.generation, after=after or 0)
    return pb.StreamInferRequest(resume=resume).SerializeToString()


async def grpc_web(place: Place, after: Any, limit: int | None) -> Any:
    message = resumed(place, after)
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = f"POST {STREAM} HTTP/1.0\r\ncontent-type: application/grpc-web+proto\r\n"
    got = await place.raw(head, body, limit)
    kept: list[bytes] = []
    while len(got) >= 5 and len(got) >= 5 + (size := int.from_bytes(got[1:5], "big")):
        if got[0]:
            return kept, after, True
        kept.append(got[5 : 5 + size])
        after = pb.Event.FromString(kept[-1]).seq
        got = got[5 + size :]
    return kept, after, False


async def grpc_native(place: Place, after: Any, limit: int | None) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{place.rpc}") as channel:
        call = channel.unary_stream(STREAM)(resumed(place, after))
        kept: list[bytes] = []
        size = 0
        async for message in call:
            kept.append(message)
            size += len(message)
            after = pb.Event.FromString(message).seq
            if limit is not None and size > limit:
                return kept, after, False
        return kept, after, True


LIVES: list[Life] = [native, openai, anthropic, responses, lines, grpc_web, grpc_native]


async def killed(life: Life, place: Place, kills: int) -> list[list[Any]]:
    """What the lives of one client after the other got together, until so many were killed."""
    passes: list[list[Any]] = []
    done = 0
    while done < kills:
        together: list[Any] = []
        after: Any = None
        over = False
        while not over:
            limit = place.chance.randint(1, 900) if done < kills else None
            kept, after, over = await life(place, after, limit)
            together += kept
            done += not over
        passes.append(together)
    return passes


async def begun(client: httpx.AsyncClient, life: Life) -> str:
    """A generation that a client of this protocol could have begun."""
    headers = {"x-on-disconnect": "continue"}
    if life is responses:
        body: dict[str, Any] = {"model": "m", "input": "x", "background": True}
        answer = await client.post("/v1/responses", json=body)
    else:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with client.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers
        ) as answer:
            pass
    return str(answer.headers["x-generation-id"])


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_killed_clients_read_every_event_once(tmp_path: Path, life: Life) -> None:
    (tmp_path / "script.json").write_text(json.dumps({"scripts": [SCRIPT]}))
    config = tmp_path / "headrace.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    kills = -(-KILLS // len(LIVES))
    chance = random.Random(f"{life.__name__} 7")

    async def main() -> None:
        app = App(loaded(str(config), {}).settings)
        loads = asyncio.Event()
        app.topics.subscribe("model", lambda news: loads.set())
        server = asyncio.create_task(app.run())
        async with asyncio.timeout(60):
            await loads.wait()
            assert app.front is not None
            assert app.grpc is not None
            rpc = int(str(app.grpc.address).rpartition(":")[2])
            url = f"http://127.0.0.1:{app.front.port}"
            async with httpx.AsyncClient(base_url=url) as client:
                place = Place(app.front.port, rpc, await begun(client, life), chance)
                passes = await killed(life, place, kills)
                whole, _, over = await life(place, None, None)
                state = (await client.get(f"/v1/generations/{place.generation}")).json()
            assert over
            assert all(together == whole for together in passes)
            assert state["usage"]["completion_tokens"] == len(WORDS) * 40
            app.stopping.set()
            assert await server == 0

    asyncio.run(main())
