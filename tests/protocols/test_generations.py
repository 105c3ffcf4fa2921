"""Reading a log from any cursor, finding it, ending it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from headrace.domain.request import CONTINUE, Leaving

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Hi."}]}
STREAM = CHAT | {"stream": True}
PREAMBLE = b"retry: 5000\n"


async def first_stream(client: httpx.AsyncClient, **options: Any) -> tuple[str, bytes]:
    """A finished generation's id, and what its first client was sent."""
    answer = await client.post(
        "/v1/chat/completions", json=STREAM | options.pop("body", {}), **options
    )
    assert answer.status_code == 200
    return answer.headers["x-generation-id"], answer.content.removeprefix(PREAMBLE)


def test_a_resumed_openai_stream_is_byte_for_byte_the_rest(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            body = {"n": 2, "stream_options": {"include_usage": True}}
            headers = {"x-stream-events": "token,progress"}
            name, whole = await first_stream(client, body=body, headers=headers)
            for after in range(8):
                path = f"/v1/generations/{name}/events?format=openai&after={after}"
                rest = (await client.get(path)).content.removeprefix(PREAMBLE)
                assert rest
                assert whole.endswith(rest)
                assert (b"id: %d\n" % after in whole[: -len(rest)]) == (after > 0)

    kit.run(main())


def test_any_of_its_ids_finds_the_log(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            name, _ = await first_stream(client)
            answers = [
                (await client.get(f"/v1/generations/{prefix}{name[4:]}/events")).content
                for prefix in ("gen_", "chatcmpl-", "resp_", "msg_")
            ]
            assert b"event: finish\n" in answers[0]
            assert len(set(answers)) == 1

    kit.run(main())


def test_last_event_id_wins_over_after(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            name, _ = await first_stream(client)
            path = f"/v1/generations/{name}/events?after=1"
            answer = await client.get(path, headers={"last-event-id": "4"})
            assert answer.content.startswith(PREAMBLE + b"id: 5\n")
            empty = await client.get(path, headers={"last-event-id": ""})
            assert empty.content.startswith(PREAMBLE + b"id: 2\n")

    kit.run(main())


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("5", 204, None),
        ("6", 400, "cursor_ahead"),
        ("999999999999999", 400, "cursor_ahead"),
        ("-1", 400, "invalid_request"),
        ("x", 400, "invalid_request"),
        ("１", 400, "invalid_request"),
        ("9" * 50, 400, "invalid_request"),
    ],
)
def test_a_cursor_at_the_end_is_204_and_beyond_it_400(
    kit: Any, after: str, status: int, code: str | None
) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            name, _ = await first_stream(client)
            answer = await client.get(f"/v1/generations/{name}/events", params={"after": after})
            assert answer.status_code == status
            if code is None:
                assert answer.content == b""
                assert answer.headers["x-generation-id"] == name
            else:
                assert answer.json()["error"]["code"] == code
                assert answer.json()["error"]["param"] == "after"

    kit.run(main())


def test_a_cursor_at_the_end_of_a_running_log_waits_for_more(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            headers = {"x-on-disconnect": "continue"}
            async with client.stream(
                "POST", "/v1/chat/completions", json=STREAM, headers=headers
            ) as first:
                name = first.headers["x-generation-id"]
            async with client.stream("GET", f"/v1/generations/{name}/events?after=1") as answer:
                assert answer.status_code == 200
                service.generations[0].write(kit.token(2, "b"), kit.finish(3))
                content = await answer.aread()
            assert content.startswith(PREAMBLE + b"id: 2\n")
            assert b"event: finish\n" in content

    kit.run(main())


def test_an_unknown_format_is_refused(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            name, _ = await first_stream(client)
            answer = await client.get(f"/v1/generations/{name}/events?format=yaml")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")

    kit.run(main())


def test_a_post_with_last_event_id_resumes_and_never_computes(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            name, whole = await first_stream(client)
            headers = {"last-event-id": "3", "x-generation-id": name}
            answer = await client.post("/v1/chat/completions", json=STREAM, headers=headers)
            assert answer.headers["x-generation-id"] == name
            assert whole.endswith(answer.content.removeprefix(PREAMBLE))
            assert answer.content.startswith(PREAMBLE + b"id: 4\n")
            assert len(service.generations) == 1

    kit.run(main())


def test_the_state_tells_how_it_ended(kit: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            if generation.caller.session_id == "bad":
                generation.write(kit.error(1, "engine_failed", "It died."))
            elif generation.caller.session_id == "open":
                generation.write(kit.progress(1, "queued"))
            else:
                kit.hello(generation)

        service = kit.Service(script)
        async with kit.talking(service) as client:
            for session in ("good", "bad"):
                await client.post(
                    "/v1/completions", json={"model": "nick", "prompt": "x", "session_id": session}
                )
            headers = {"x-session-id": "open", "x-on-disconnect": "continue"}
            async with client.stream("POST", "/v1/chat/completions", json=STREAM, headers=headers):
                pass
            good, bad, running = [
                (await client.get(f"/v1/generations/{generation.id}")).json()
                for generation in service.generations
            ]
        assert good == {
            "id": service.generations[0].id,
            "object": "generation",
            "state": "finished",
            "created": 1795346282.013,
            "model": "nick",
            "last_seq": 5,
            "session_id": "good",
            "usage": {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "total_tokens": 8,
                "cached_tokens": 2,
            },
            "finish_reason": "stop",
            "error": None,
        }
        assert (bad["state"], bad["error"]["code"], bad["usage"]) == (
            "failed",
            "engine_failed",
            None,
        )
        assert (running["state"], running["last_seq"]) == ("running", 1)

    kit.run(main())


def test_a_sessions_generations_are_listed_newest_first(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            for session in ("a", "b", "a", "a"):
                await client.post("/v1/chat/completions", json=CHAT | {"session_id": session})
            answer = (await client.get("/v1/generations?session_id=a&limit=2")).json()
            assert answer["object"] == "list"
            ids = [generation["id"] for generation in answer["data"]]
            assert ids == [service.generations[3].id, service.generations[2].id]
            assert len((await client.get("/v1/generations")).json()["data"]) == 4

    kit.run(main())


def test_cancelling_is_idempotent_and_says_the_state(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.progress(1)))
        async with kit.talking(service) as client:
            headers = {"x-on-disconnect": "continue"}
            async with client.stream(
                "POST", "/v1/chat/completions", json=STREAM, headers=headers
            ) as answer:
                name = answer.headers["x-generation-id"]
                for _ in range(2):
                    cancelled = await client.post(f"/v1/generations/{name}/cancel")
                    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "failed")
                assert b'"code":"cancelled"' in await answer.aread()
        assert service.cancelled == [name, name]

    kit.run(main())


@pytest.mark.parametrize("form", ["body", "header"])
def test_an_abort_token_ends_the_generations_that_carry_it(kit: Any, form: str) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            headers = {"x-abort-token": "stop-me"}
            async with client.stream(
                "POST", "/v1/chat/completions", json=STREAM, headers=headers
            ) as answer:
                if form == "body":
                    aborted = await client.post("/v1/abort", json={"token": "stop-me"})
                else:
                    aborted = await client.post("/v1/abort", headers=headers)
                assert aborted.json() == {"aborted": 1}
                assert b'"code":"cancelled"' in await answer.aread()
            assert (await client.post("/v1/abort", json={"token": "stop-me"})).json() == {
                "aborted": 0
            }

    kit.run(main())


@pytest.mark.parametrize(
    ("leaving", "counts"), [("cancel", False), ("grace=9", True), ("continue", True)]
)
def test_a_reader_counts_as_client_only_where_leaving_does_not_cancel(
    kit: Any, leaving: str, counts: bool
) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            headers = {"x-on-disconnect": leaving}
            async with client.stream("POST", "/v1/chat/completions", json=STREAM, headers=headers):
                (generation,) = service.generations
                assert generation.caller.leaving in (Leaving(0.0), Leaving(9.0), CONTINUE)
                async with client.stream("GET", f"/v1/generations/{generation.id}/events"):
                    assert generation.clients == 1 + counts

    kit.run(main())
