"""``POST /v1/generations/{id}/prompts``: a message for a running generation, and what its clients see of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from headrace.domain.request import Caller
from headrace.protocols.generations import MAX_CONTENT_BYTES

STREAM = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "Hi."}],
    "stream": True,
}


def begins(kit: Any) -> Any:
    """A service whose answers have begun and wait."""
    return kit.Service(lambda generation: generation.write(kit.token(1, "Hel")))


async def lines(answer: httpx.Response, count: int) -> list[str]:
    """The data of that many messages."""
    found = []
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            found.append(line[6:])
            if len(found) == count:
                break
    return found


def test_it_is_in_the_log_and_says_where(kit: Any) -> None:
    async def main() -> None:
        service = begins(kit)
        async with kit.talking(service) as client:
            headers = {"x-stream-events": "token,prompt"}
            async with client.stream(
                "POST", "/v1/chat/completions", json=STREAM, headers=headers
            ) as answer:
                generation = await service.generation(0)
                path = f"/v1/generations/{generation.id.replace('gen_', 'chatcmpl-')}/prompts"
                added = await client.post(path, json={"role": "user", "content": "More."})
                assert added.status_code == 200
                assert added.headers["x-generation-id"] == generation.id
                assert added.json() == {
                    "generation": generation.id,
                    "prompts": [{"seq": 2, "role": "user", "content": "More."}],
                }
                generation.write(kit.token(3, "lo"), kit.finish(4))
                shown = [json.loads(line) for line in await lines(answer, 4)]
                assert shown[2]["headrace"]["payload"] == {"role": "user", "content": "More."}
                assert shown[3]["choices"][0]["delta"] == {"content": "lo"}
            again = await client.post(path, json={"role": "user", "content": "More."})
            assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")

    kit.run(main())


def test_a_client_that_did_not_ask_for_prompts_sees_one_message(kit: Any) -> None:
    async def main() -> None:
        service = begins(kit)
        async with (
            kit.talking(service) as client,
            client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
        ):
            generation = await service.generation(0)
            path = f"/v1/generations/{generation.id}/prompts"
            await client.post(path, json={"role": "system", "content": "More."})
            generation.write(kit.token(3, "lo"), kit.finish(4))
            assert "More." not in "".join(await lines(answer, 5))

    kit.run(main())


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"role": "assistant", "content": "x"}, 400, "role"),
        ({"role": "user", "content": ""}, 400, "content"),
        ({"role": "user"}, 400, "content"),
        ({"role": "user", "content": "x", "name": "y"}, 400, "name"),
        ({"role": "user", "content": "x" * (MAX_CONTENT_BYTES + 1)}, 413, "content"),
        ({"role": "user", "content": "ü" * (MAX_CONTENT_BYTES // 2 + 1)}, 413, "content"),
        ({"role": "user", "content": "ü" * (MAX_CONTENT_BYTES // 2)}, 200, None),
    ],
)
def test_a_message_that_is_none_is_refused_by_name(
    kit: Any, body: dict[str, Any], status: int, param: str | None
) -> None:
    async def main() -> None:
        service = begins(kit)
        generation = service.submit(kit.chat_request(), Caller(), "native", {})
        async with kit.talking(service) as client:
            answer = await client.post(f"/v1/generations/{generation.id}/prompts", json=body)
            assert answer.status_code == status
            assert answer.json().get("error", {}).get("param") == param

    kit.run(main())


def test_another_tenants_generation_is_not_there(kit: Any) -> None:
    async def main() -> None:
        service = begins(kit)
        service.keys = {"a": "ann", "b": "bob"}
        generation = service.submit(kit.chat_request(), Caller("ann"), "native", {})
        async with kit.talking(service) as client:
            for key, status in (("a", 200), ("b", 404), ("c", 401)):
                answer = await client.post(
                    f"/v1/generations/{generation.id}/prompts",
                    json={"role": "user", "content": "x"},
                    headers={"authorization": f"Bearer {key}"},
                )
                assert answer.status_code == status

    kit.run(main())
