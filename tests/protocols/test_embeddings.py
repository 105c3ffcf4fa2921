"""``/v1/embeddings`` as OpenAI has it, asked with its own SDK."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import openai
import pytest

from headrace.domain.allowance import Allowance, Left
from headrace.domain.embeddings import EmbeddingRequest
from headrace.domain.errors import Code, HeadraceError


def post(kit: Any, body: Any, embedder: Any, **headers: str) -> httpx.Response:
    found: list[httpx.Response] = []

    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello), embedder=embedder) as client:
            found.append(await client.post("/v1/embeddings", json=body, headers=headers))

    kit.run(main())
    return found[0]


@pytest.mark.parametrize("kind", ["f", "d"])
def test_the_asynchronous_sdk_reads_both_formats(kit: Any, kind: str) -> None:
    embedder = kit.Embedder(kind)

    async def main() -> None:
        async with (
            kit.serving(kit.Service(kit.hello), embedder=embedder) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-x") as client,
            openai.AsyncOpenAI(
                base_url=f"{url}/v1", api_key="sk-x", _strict_response_validation=True
            ) as strict,
        ):
            usual = await client.embeddings.create(model="nick", input=["a", "abc"])
            # The usual one, base64, is nothing that the SDK's own strict validation allows.
            plain = await strict.embeddings.create(
                model="nick", input=["a", "abc"], encoding_format="float", dimensions=2, user="u"
            )
            for answer in (usual, plain):
                assert [list(one.embedding) for one in answer.data] == [[1, 0.5], [3, 1.5]]
                assert [one.index for one in answer.data] == [0, 1]
                assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7)
                assert answer.model == "nick"

    kit.run(main())
    assert embedder.asked == [
        EmbeddingRequest("nick", ("a", "abc")),
        EmbeddingRequest("nick", ("a", "abc"), 2, "u"),
    ]


def test_the_synchronous_sdk_does_too(kit: Any) -> None:
    async def main() -> None:
        async with kit.serving(kit.Service(kit.hello), embedder=kit.Embedder()) as url:

            def ask() -> Any:
                with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-x", max_retries=0) as client:
                    return client.embeddings.create(model="nick", input="abc")

            answer = await asyncio.to_thread(ask)
            assert list(answer.data[0].embedding) == [3, 0.5]

    kit.run(main())


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("a", ("a",)),
        (["a"], ("a",)),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_inputs_come_in_four_shapes(kit: Any, value: Any, inputs: Any) -> None:
    embedder = kit.Embedder()
    assert post(kit, {"model": "m", "input": value, "priority": 3}, embedder).status_code == 200
    assert embedder.asked == [EmbeddingRequest("m", inputs, priority=3)]


def test_base64_is_float32_little_endian(kit: Any) -> None:
    body = {"model": "m", "input": "abc", "encoding_format": "base64"}
    answer = post(kit, body, kit.Embedder("d")).json()
    assert answer["object"] == "list"
    assert answer["data"][0]["object"] == "embedding"
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert raw == bytes.fromhex("000040400000003f")  # 3.0, 0.5


def test_many_inputs_come_back_in_their_order(kit: Any) -> None:
    texts = ["x" * (1 + at % 7) for at in range(2048)]
    answer = post(kit, {"model": "m", "input": texts}, kit.Embedder()).json()
    assert [one["embedding"] for one in answer["data"]] == [
        [len(text), at + 0.5] for at, text in enumerate(texts)
    ]
    assert [one["index"] for one in answer["data"]] == list(range(2048))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["a", ""]}, "input[1]"),
        ({"model": "m", "input": [[1], []]}, "input[1]"),
        ({"model": "m", "input": [[]]}, "input"),
        ({"model": "m", "input": ["a", 1]}, "input"),
        ({"model": "m", "input": ["a", [1]]}, "input"),
        ({"model": "m", "input": [-1]}, "input[0]"),
        ({"model": "m", "input": [1.5]}, "input[0]"),
        ({"model": "m", "input": 3}, "input"),
        ({"model": "m", "input": ["a"] * 2049}, "input"),
        ({"model": "m", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "m", "input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"model": "m", "input": "a", "truncate": True}, "truncate"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(kit: Any, body: Any, param: str) -> None:
    embedder = kit.Embedder()
    answer = post(kit, body, embedder)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not embedder.asked


def test_an_error_is_said_as_openai_says_it(kit: Any) -> None:
    embedder = kit.Embedder()
    embedder.refuse = HeadraceError(Code.CONTEXT_LENGTH, "Too long.", param="input[3]")
    answer = post(kit, {"model": "m", "input": "a"}, embedder)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "Too long.",
        "type": "invalid_request_error",
        "param": "input[3]",
        "code": "context_length_exceeded",
    }


def test_what_the_caller_has_left_is_in_the_head(kit: Any) -> None:
    class Reservation:
        def allowance(self, now: float, wall: float) -> Allowance:
            return Allowance(None, Left(100, 93, 4.0))

    embedder = kit.Embedder()
    embedder.reservation = Reservation()
    answer = post(kit, {"model": "m", "input": "a"}, embedder)
    assert answer.headers["x-ratelimit-remaining-tokens"] == "93"


def test_a_server_without_any_says_so(kit: Any) -> None:
    answer = post(kit, {"model": "m", "input": "a"}, None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_who_leaves_cancels(kit: Any) -> None:
    async def main() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        class Slow:
            async def embed(self, request: Any, caller: Any) -> Any:
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

        async with kit.talking(kit.Service(kit.hello), embedder=Slow()) as client:
            asking = asyncio.create_task(
                client.post("/v1/embeddings", json={"model": "m", "input": "a"})
            )
            await began.wait()
            asking.cancel()
            await cancelled.wait()

    kit.run(main())
