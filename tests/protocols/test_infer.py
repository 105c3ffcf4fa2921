"""The native endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headrace.domain.request import Sampling


def test_one_prompt_is_answered_whole(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            body = {
                "prompt": "Hi",
                "max_tokens": 7,
                "temperature": 0.5,
                "top_p": 0.9,
                "stream": False,
                "stop_words": ["x"],
                "user_id": "u",
                "session_id": "s",
            }
            answer = (await client.post("/v1/infer", json=body)).json()
        (generation,) = service.generations
        assert answer == {
            "text": "Hello wörld 😀\n",
            "tokens": 3,
            "latency": 5.0,
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
            "finish_reason": "stop",
            "id": generation.id,
        }
        request = generation.request
        assert (request.model, request.prompts, request.user) == ("scripted", ("Hi",), "u")
        assert request.sampling == Sampling(max_tokens=7, temperature=0.5, top_p=0.9, stop=("x",))
        assert generation.caller.session_id == "s"

    kit.run(main())


@pytest.mark.parametrize("path", ["/v1/stream_infer", "/v1/infer"])
def test_one_prompt_is_answered_as_a_stream_of_events(kit: Any, path: str) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            body = {"prompt": "Hi", "stream": path == "/v1/infer"}
            answer = await client.post(path, json=body, headers={"accept": "application/x-ndjson"})
            events = [json.loads(line) for line in answer.text.splitlines()]
            assert [event["type"] for event in events] == ["progress", *["token"] * 3, "finish"]
            as_sse = await client.post(path, json=body)
            assert as_sse.text.count("event: token\n") == 3

    kit.run(main())


def test_a_batch_keeps_its_order_and_each_item_has_its_own_error(kit: Any) -> None:
    async def main() -> None:
        held: list[Any] = []

        def script(generation: Any) -> None:
            held.append(generation)
            if len(held) == 3:
                held[2].write(kit.token(1, "third"), kit.finish(2))
                held[1].write(kit.error(1, "engine_failed", "It died."))
                held[0].write(kit.token(1, "first"), kit.finish(2))

        items = [
            {"prompt": "a", "session_id": "own"},
            {"prompt": 1},
            {"prompt": "b"},
            {"prompt": "c", "mirostat": 1},
            {"prompt": "d", "stream": True},
            7,
            {"prompt": "e"},
        ]
        async with kit.talking(kit.Service(script)) as client:
            answer = await client.post("/v1/batch_infer", json=items)
        answers = answer.json()
        assert answer.status_code == 200
        assert [item["text"] for item in answers] == ["first", "", "", "", "", "", "third"]
        codes = [item["error"]["code"] if "error" in item else None for item in answers]
        assert codes == [
            None,
            "invalid_request",
            "engine_failed",
            "unsupported_option",
            "unsupported_option",
            "invalid_request",
            None,
        ]
        assert held[0].caller.session_id == "own"
        assert answers[1]["error"]["param"] == "prompt"

    kit.run(main())


def test_an_empty_batch_is_an_empty_answer(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            assert (await client.post("/v1/batch_infer", json=[])).json() == []

    kit.run(main())


def test_a_batch_that_is_too_long_is_refused_whole(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            answer = await client.post("/v1/batch_infer", json=[{"prompt": "x"}] * 257)
            assert answer.status_code == 400
            assert service.generations == []

    kit.run(main())


def test_leaving_a_batch_leaves_all_its_generations(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            asking = asyncio.create_task(
                client.post("/v1/batch_infer", json=[{"prompt": "x"}, {"prompt": "y"}])
            )
            await service.generation(1)
            asking.cancel()
            for generation in service.generations:
                await generation.left.wait()

    kit.run(main())
