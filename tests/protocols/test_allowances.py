"""What a caller has left of its limits: on every answer that a generation of its own begins."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.domain.allowance import Allowance, Left
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.protocols.allowances import duration

LEFT = Allowance(Left(60, 59, 1.0), Left(10_000, 4000, 36.0))
OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "10000",
    "x-ratelimit-remaining-tokens": "4000",
    "x-ratelimit-reset-tokens": "36s",
}
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
PROMPT = {"model": "scripted", "prompt": "x"}
STREAM = {"stream": True}
ASKED: list[tuple[str, Any]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | STREAM),
    ("/v1/completions", PROMPT),
    ("/v1/completions", PROMPT | STREAM),
    ("/v1/responses", {"model": "scripted", "input": "x"}),
    ("/v1/responses", {"model": "scripted", "input": "x"} | STREAM),
    ("/v1/responses", {"model": "scripted", "input": "x", "background": True}),
    ("/v1/infer", {"prompt": "x"}),
    ("/v1/stream_infer", {"prompt": "x"}),
    ("/v1/batch_infer", [{"prompt": "x"}, {"prompt": "y"}]),
    ("/v1/responses/input_tokens", {"model": "scripted", "input": "x"}),
    ("/tokenize", {"content": "x"}),
    ("/detokenize", {"tokens": [97]}),
]
MESSAGES = [
    ("/v1/messages", CHAT | {"max_tokens": 5}),
    ("/v1/messages", CHAT | {"max_tokens": 5} | STREAM),
    ("/v1/messages/count_tokens", CHAT),
]


class Reservation:
    def allowance(self, now: float, wall: float) -> Allowance:
        return LEFT


def limited(kit: Any, *, usage: Usage | None = None) -> Any:
    """A service whose caller has limits."""

    def script(generation: Any) -> None:
        generation.reservation = Reservation()
        end = kit.finish(2, "length", usage=usage or Usage(5, 3, 2))
        generation.write(kit.token(1, "Hello"), end)

    service = kit.Service(script)
    service.reservation = Reservation()
    return service


def named(answer: Any, prefix: str) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if prefix in name}


@pytest.mark.parametrize(("path", "body"), ASKED)
def test_every_answer_says_what_is_left(kit: Any, path: str, body: Any) -> None:
    async def main() -> None:
        async with kit.talking(limited(kit)) as client:
            answer = await client.post(path, json=body)
            assert answer.status_code == 200
            assert named(answer, "ratelimit") == OPENAI

    kit.run(main())


@pytest.mark.parametrize(("path", "body"), MESSAGES)
def test_anthropic_s_clients_find_their_own_headers(kit: Any, path: str, body: Any) -> None:
    async def main() -> None:
        async with kit.talking(limited(kit)) as client:
            found = named(await client.post(path, json=body), "ratelimit")
            resets = [
                found.pop(f"anthropic-ratelimit-{what}-reset") for what in ("requests", "tokens")
            ]
            assert found == {
                "anthropic-ratelimit-requests-limit": "60",
                "anthropic-ratelimit-requests-remaining": "59",
                "anthropic-ratelimit-tokens-limit": "10000",
                "anthropic-ratelimit-tokens-remaining": "4000",
            }
            for reset, seconds in zip(resets, (1, 36), strict=True):
                off = datetime.fromisoformat(reset) - datetime.now(UTC)
                assert abs(off - timedelta(seconds=seconds)) < timedelta(seconds=30)

    kit.run(main())


def test_who_has_no_limits_is_told_of_none_and_readers_neither(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            assert not named(await client.post("/v1/chat/completions", json=CHAT), "ratelimit")
            service.generations[0].reservation = Reservation()
            read = await client.get(f"/v1/generations/{service.generations[0].id}/events")
            assert read.status_code == 200
            assert not named(read, "ratelimit")

    kit.run(main())


def test_only_what_is_limited_is_told(kit: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            class Half:
                def allowance(self, now: float, wall: float) -> Allowance:
                    return Allowance(None, LEFT.tokens)

            generation.reservation = Half()
            kit.hello(generation)

        async with kit.talking(kit.Service(script)) as client:
            found = named(await client.post("/v1/chat/completions", json=CHAT), "ratelimit")
            assert set(found) == {name for name in OPENAI if name.endswith("tokens")}

    kit.run(main())


@pytest.mark.parametrize(
    ("path", "body", "prefix"),
    [
        ("/v1/chat/completions", CHAT, "x-ratelimit"),
        ("/v1/chat/completions", CHAT | STREAM, "x-ratelimit"),
        ("/v1/messages", CHAT | {"max_tokens": 5}, "anthropic-ratelimit"),
    ],
)
def test_a_refusal_says_when_to_come_again_and_what_is_left(
    kit: Any, path: str, body: Any, prefix: str
) -> None:
    error = HeadraceError(Code.RATE_LIMITED, "Too often.", retry_after_s=1.2341, allowance=LEFT)

    async def main() -> None:
        service = limited(kit)
        service.refuse = lambda request: error
        async with kit.talking(service) as client:
            answer = await client.post(path, json=body)
            assert answer.status_code == 429
            assert answer.headers["retry-after-ms"] == "1235"
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["x-should-retry"] == "true"
            assert len(named(answer, prefix)) == 6
            assert not service.generations

    kit.run(main())


def test_pages_may_read_them(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(limited(kit), cors_origins=("https://a.example",)) as client:
            answer = await client.post(
                "/v1/chat/completions", json=CHAT, headers={"origin": "https://a.example"}
            )
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert set(OPENAI) <= set(exposed)
            assert named(answer, "ratelimit") == OPENAI

    kit.run(main())


CUT = Usage(5, 3, 2, "tenant.tokens_per_minute")
INCLUDE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("path", "body", "at"),
    [
        ("/v1/chat/completions", CHAT, "usage"),
        ("/v1/chat/completions", CHAT | STREAM | INCLUDE, "usage"),
        ("/v1/completions", PROMPT, "usage"),
        ("/v1/completions", PROMPT | STREAM | INCLUDE, "usage"),
        ("/v1/responses", {"model": "scripted", "input": "x"}, "usage"),
        ("/v1/responses", {"model": "scripted", "input": "x"} | STREAM, "response.usage"),
        ("/v1/messages", CHAT | {"max_tokens": 5}, "usage"),
        ("/v1/messages", CHAT | {"max_tokens": 5} | STREAM, "usage"),
        ("/v1/infer", {"prompt": "x"}, "usage"),
        ("/v1/stream_infer", {"prompt": "x"}, "payload.usage"),
    ],
)
def test_usage_says_which_limit_ended_an_answer_and_nothing_where_none_did(
    kit: Any, path: str, body: Any, at: str
) -> None:
    async def main() -> None:
        for usage, expected in ((CUT, "tenant.tokens_per_minute"), (Usage(5, 3, 2), None)):
            async with kit.talking(limited(kit, usage=usage)) as client:
                answer = await client.post(path, json=body)
                assert last_usage(answer.text, at.split(".")).get("limited_by") == expected

    kit.run(main())


def test_the_state_of_a_generation_says_it_too(kit: Any) -> None:
    async def main() -> None:
        service = limited(kit, usage=CUT)
        async with kit.talking(service) as client:
            await client.post("/v1/chat/completions", json=CHAT)
            state = await client.get(f"/v1/generations/{service.generations[0].id}")
            assert state.json()["usage"]["limited_by"] == "tenant.tokens_per_minute"

    kit.run(main())


def last_usage(text: str, path: list[str]) -> dict[str, Any]:
    """The last one in an answer, whole or as events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if "usage" in line]
    found = None
    for line in lines:
        value = json.loads(line)
        for name in path:
            value = (value or {}).get(name)
        found = value or found
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (-1.0, "0ms"),
        (0.0111, "12ms"),
        (0.9999, "1s"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9991, "1m0s"),
        (360.0, "6m0s"),
        (86.4, "1m26.4s"),
        (3723.0, "1h2m3s"),
        (86_400.0, "24h0m0s"),
    ],
)
def test_a_duration_is_written_as_openai_does_and_never_shorter(seconds: float, text: str) -> None:
    assert duration(seconds) == text
