"""`Idempotency-Key`: the same request again is the same generation, on every endpoint that computes."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.domain.request import Urgency

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
ENDPOINTS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/completions", {"model": "scripted", "prompt": "Hi"}),
    ("/v1/responses", {"model": "scripted", "input": "Hi"}),
    ("/v1/responses", {"model": "scripted", "input": "Hi", "stream": True}),
    ("/v1/messages", {**CHAT, "max_tokens": 9}),
    ("/v1/messages", {**CHAT, "max_tokens": 9, "stream": True}),
    ("/v1/infer", {"prompt": "Hi"}),
    ("/v1/stream_infer", {"prompt": "Hi"}),
]
KEY = {"idempotency-key": "one"}


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_a_repeat_has_the_answer_of_the_first(kit: Any, path: str, body: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            first = await client.post(path, json=body, headers=KEY)
            again = await client.post(path, json=body, headers=KEY)
            assert first.status_code == again.status_code == 200
            assert again.content == first.content
            assert again.headers["x-generation-id"] == first.headers["x-generation-id"]
            assert len(service.generations) == 1
            other = await client.post(path, json=body, headers={"idempotency-key": "two"})
            assert other.headers["x-generation-id"] != first.headers["x-generation-id"]

    kit.run(main())


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_another_body_with_the_key_is_refused(kit: Any, path: str, body: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            await client.post(path, json=body, headers=KEY)
            other = await client.post(path, json={**body, "temperature": 0.5}, headers=KEY)
            assert other.status_code == 422
            assert "key" in other.json()["error"]["message"]
            assert len(service.generations) == 1

    kit.run(main())


def test_each_item_of_a_batch_is_known_by_its_place(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            body = [{"prompt": "a"}, {"prompt": "b"}]
            first = await client.post("/v1/batch_infer", json=body, headers=KEY)
            again = await client.post("/v1/batch_infer", json=body, headers=KEY)
            assert again.json() == first.json()
            assert len({item["id"] for item in first.json()}) == len(service.generations) == 2

    kit.run(main())


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
def test_a_request_has_its_priority_on_every_endpoint(kit: Any, path: str, body: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            await client.post(path, json={**body, "priority": 7})
            assert service.generations[0].request.priority == 7
            assert service.generations[0].request.extra is None
            refused = await client.post(path, json={**body, "priority": "high"})
            assert refused.status_code == 400

    kit.run(main())


@pytest.mark.parametrize("count", ["0", "1", "x"])
def test_what_sdks_count_is_taken_from_the_head(kit: Any, count: str) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            headers = {"x-stainless-retry-count": count}
            await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert service.generations[0].caller.retry == (int(count) if count != "x" else None)

    kit.run(main())


@pytest.mark.parametrize(("value", "seconds"), [("250", 0.25), ("1500.5", 1.5005)])
def test_targets_may_come_with_a_request(kit: Any, value: str, seconds: float) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            headers = {"x-llm-d-slo-ttft-ms": value, "x-llm-d-slo-tpot-ms": value}
            body = {**CHAT, "priority": -3}
            await client.post("/v1/chat/completions", json=body, headers=headers)
            (generation,) = service.generations
            assert generation.caller.urgency == Urgency(seconds, seconds)
            assert generation.request.priority == -3

    kit.run(main())


@pytest.mark.parametrize(
    ("headers", "urgency"),
    [
        ({"x-slo-ttft-ms": "250"}, Urgency(0.25)),
        ({"x-slo-tpot-ms": "20.000000"}, Urgency(None, 0.02)),
        ({"x-slo-ttft-ms": "999", "x-llm-d-slo-ttft-ms": "250"}, Urgency(0.25)),
        ({"x-llm-d-inference-objective": "batch"}, Urgency(level="batch")),
        ({"x-gateway-inference-objective": "Standard"}, Urgency(level="standard")),
        ({"x-llm-d-inference-fairness-id": "me", "x-prediction-based-scheduling": "true"}, None),
        ({"x-gateway-inference-fairness-id": "me"}, None),
    ],
)
def test_what_other_gateways_take_is_understood_or_left_alone(
    kit: Any, headers: dict[str, str], urgency: Urgency | None
) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert service.generations[0].caller.urgency == urgency
            assert service.generations[0].caller.tenant == "default"

    kit.run(main())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("x-llm-d-slo-ttft-ms", value) for value in ("0", "-1", "soon", "nan", "1e3")],
        ("x-slo-ttft-ms", "soon"),
        ("x-slo-tpot-ms", "0.0"),
        ("x-llm-d-inference-objective", "premium"),
        ("x-gateway-inference-objective", ""),
    ],
)
def test_a_wish_that_is_none_is_refused_by_its_name(kit: Any, name: str, value: str) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={name: value})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == name
            assert name in answer.json()["error"]["message"]

    kit.run(main())
