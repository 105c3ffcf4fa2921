"""``/v1/responses``: its stream is a pure fold of the log, its objects say what the log says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from headrace.admission.sizes import Sizes
from headrace.domain.event import Event
from headrace.domain.request import CONTINUE, Caller, Message, Sampling
from headrace.protocols.encoder import FRAMINGS, Rest
from headrace.protocols.formats import ENCODERS, RESPONSES
from headrace.protocols.responses_object import TERMS
from headrace.protocols.responses_stream import STARTING_AFTER

ASK = {"model": "scripted", "input": "Hi."}
LAST = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}


def everything(kit: Any) -> list[Event]:
    """A log with all that a response can say."""
    call = kit.ToolCallDelta
    entry = kit.TokenLogprob("lo", -0.5, (108, 111), (("lo", -0.5, (108, 111)),))
    return [
        kit.progress(1, "queued", position=1),
        kit.progress(2, "prefill", done=1, total=2),
        kit.token(3, "Let me ", reasoning=True),
        kit.token(4, "think.", reasoning=True),
        kit.token(5, "Hel"),
        kit.token(6, "not of this choice", index=1),
        kit.token(7, "lo", logprobs=(entry,)),
        kit.prompt(8, "user", "and now?"),
        kit.token(9, "", tool_calls=(call(0, "call_1", "weather", ""),)),
        kit.token(10, "", tool_calls=(call(0, None, None, '{"city":'),)),
        kit.token(
            11, "", tool_calls=(call(0, None, None, '"Rome"}'), call(1, "call_2", "time", "{}"))
        ),
        kit.token(12, "Done."),
        kit.finish(13, "tool_calls"),
    ]


def streamed(
    kit: Any,
    log: Sequence[Event],
    form: Any = "sse",
    *,
    after: int = 0,
    size: int = 1,
    **options: Any,
) -> bytes:
    generation = kit.Generation(
        kit.chat_request(messages=(Message("user", "Hi."),), sampling=Sampling(logprobs=1)),
        wire=RESPONSES,
        wire_options={TERMS: {"metadata": {"a": "b"}}},
    )
    options = generation.wire_options | options
    encoder = ENCODERS[RESPONSES](generation, options, FRAMINGS[form])
    if after:
        encoder = Rest(encoder, after)
    batches = [log[start : start + size] for start in range(0, len(log), size)]
    return b"".join(encoder.encode(batch) for batch in batches)


def messages(stream: bytes) -> list[dict[str, Any]]:
    blocks = [block for block in stream.decode().split("\n\n") if block]
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    said = [json.loads(one["data"]) for one in fields if one["data"] != "[DONE]"]
    named = [one.get("event") for one in fields if one["data"] != "[DONE]"]
    assert [one["type"] for one in said] == named
    return said


@pytest.mark.parametrize("form", FRAMINGS)
@pytest.mark.parametrize("options", [{}, {"progress": True, "prompt": True}])
def test_the_same_log_is_the_same_bytes_however_it_is_read(
    kit: Any, form: Any, options: dict[str, bool]
) -> None:
    log = everything(kit)
    whole = streamed(kit, log, form, **options)

    for size in (2, 5, 13):
        assert streamed(kit, log, form, size=size, **options) == whole
    for after in range(1, 13):
        assert whole.endswith(streamed(kit, log, form, after=after, **options))


@pytest.mark.parametrize("options", [{}, {"progress": True, "prompt": True}])
def test_what_starts_after_any_number_is_the_rest(kit: Any, options: dict[str, bool]) -> None:
    log = everything(kit)
    lines = streamed(kit, log, "ndjson", **options).splitlines(keepends=True)

    assert [json.loads(line)["sequence_number"] for line in lines] == list(range(len(lines)))
    for number in range(-1, len(lines) + 3):
        rest = streamed(kit, log, "ndjson", **options, **{STARTING_AFTER: number})
        assert rest == b"".join(lines[number + 1 :])
        said = messages(streamed(kit, log, **options, **{STARTING_AFTER: number}))
        assert said == [json.loads(line) for line in lines[number + 1 :]]


def test_every_item_is_opened_said_and_closed_in_the_order_of_the_log(kit: Any) -> None:
    said = messages(streamed(kit, everything(kit)))
    short = [
        (one["type"].removeprefix("response."), one.get("output_index"), one.get("delta"))
        for one in said
    ]

    def text(at: int, kind: str, *deltas: str) -> list[Any]:
        return [
            ("output_item.added", at, None),
            ("content_part.added", at, None),
            *((f"{kind}.delta", at, delta) for delta in deltas),
            (f"{kind}.done", at, None),
            ("content_part.done", at, None),
            ("output_item.done", at, None),
        ]

    arguments = "function_call_arguments"
    assert short == [
        ("created", None, None),
        ("queued", None, None),
        ("in_progress", None, None),
        *text(0, "reasoning_text", "Let me ", "think."),
        *text(1, "output_text", "Hel", "lo"),
        ("output_item.added", 2, None),
        (f"{arguments}.delta", 2, '{"city":'),
        (f"{arguments}.delta", 2, '"Rome"}'),
        ("output_item.added", 3, None),
        (f"{arguments}.delta", 3, "{}"),
        ("output_item.added", 4, None),
        ("content_part.added", 4, None),
        ("output_text.delta", 4, "Done."),
        (f"{arguments}.done", 2, None),
        ("output_item.done", 2, None),
        (f"{arguments}.done", 3, None),
        ("output_item.done", 3, None),
        ("output_text.done", 4, None),
        ("content_part.done", 4, None),
        ("output_item.done", 4, None),
        ("completed", None, None),
    ]
    done = [one["item"] for one in said if one["type"] == "response.output_item.done"]
    response = said[-1]["response"]
    assert response["output"] == sorted(done, key=response["output"].index)
    assert len({item["id"] for item in done}) == len(done) == 5
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    assert response["output"][2]["arguments"] == '{"city":"Rome"}'
    assert {item.get("status", "completed") for item in done} == {"completed"}
    assert response["metadata"] == {"a": "b"}
    assert {name: response["usage"][name] for name in LAST} == LAST


@pytest.mark.parametrize("code", ["cancelled", "engine_failed", "rate_limited"])
def test_an_end_that_is_no_answer_leaves_its_items_incomplete(kit: Any, code: str) -> None:
    log = [kit.token(1, "Hel"), kit.error(2, code, "It ended.")]
    said = messages(streamed(kit, log))

    assert said[-1]["type"] == "response.failed", "OpenAI has no event for cancelled responses"
    response = said[-1]["response"]
    assert response["status"] == ("cancelled" if code == "cancelled" else "failed")
    expected = {
        "cancelled": None,
        "engine_failed": {"code": "server_error", "message": "It ended."},
        "rate_limited": {"code": "rate_limit_exceeded", "message": "It ended."},
    }
    assert response["error"] == expected[code]
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert response["usage"] is None


@pytest.mark.parametrize(
    ("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_short_is_incomplete_and_says_why(kit: Any, reason: str, said: str) -> None:
    found = messages(streamed(kit, [kit.token(1, "Hel"), kit.finish(2, reason)]))

    assert found[-1]["type"] == "response.incomplete"
    response = found[-1]["response"]
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": said}
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] == 3


# The endpoints.


async def create(client: Any, **fields: Any) -> Any:
    return await client.post("/v1/responses", json=ASK | fields)


def test_a_whole_answer_and_what_is_read_later_are_the_same(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            made = await create(client)
            response = made.json()
            assert made.headers["x-generation-id"] == "gen_" + response["id"].removeprefix("resp_")
            assert (response["object"], response["status"]) == ("response", "completed")
            assert response["output"][0]["content"][0]["text"] == "Hello wörld 😀\n"
            later = await client.get(f"/v1/responses/{response['id']}")
            assert later.json() == response
            streamed = await client.get(f"/v1/responses/{response['id']}?stream=true")
            assert messages(streamed.content.split(b"\n", 1)[1])[-1]["response"] == response

    kit.run(main())


def test_a_stream_is_resumed_by_either_cursor_and_by_its_post(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            posted = await create(client, stream=True)
            generation = posted.headers["x-generation-id"]
            head, whole = posted.content.split(b"\n", 1)
            assert head == b"retry: 5000"
            path = f"/v1/responses/resp_{generation[4:]}?stream=true"
            for seq in (1, 2, 3, 4):
                cursor = {"Last-Event-ID": str(seq)}
                rest = whole[whole.index(b"id: %d\n" % seq) :].split(b"\n\n", 1)[1]
                read = await client.get(path, headers=cursor)
                assert read.content.split(b"\n", 1)[1] == rest
                again = await client.post(
                    "/v1/responses", headers=cursor | {"X-Generation-Id": generation}
                )
                assert again.content.split(b"\n", 1)[1] == rest
                events = f"/v1/generations/{generation}/events?format=responses"
                other = await client.get(events, headers=cursor)
                assert other.content.split(b"\n", 1)[1] == rest
            over = await client.get(path, headers={"Last-Event-ID": "5"})
            assert over.status_code == 204
            ahead = await client.get(path, headers={"Last-Event-ID": "6"})
            assert (ahead.status_code, ahead.json()["error"]["code"]) == (400, "cursor_ahead")
            numbers = [one["sequence_number"] for one in messages(whole)]
            for after in numbers:
                read = await client.get(f"{path}&starting_after={after}")
                found = messages(read.content.split(b"\n", 1)[1])
                assert [one["sequence_number"] for one in found] == numbers[after + 1 :]
            bad = await client.get(f"{path}&starting_after=x")
            assert bad.json()["error"]["param"] == "starting_after"
            for query, param in (
                ("stream=maybe", "stream"),
                ("starting_after=x", "starting_after"),
            ):
                bad = await client.get(f"/v1/responses/resp_{generation[4:]}?{query}")
                assert (bad.status_code, bad.json()["error"]["param"]) == (400, param)
            wrong = {"Last-Event-ID": "x"}
            bad = await client.get(f"/v1/responses/resp_{generation[4:]}", headers=wrong)
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "Last-Event-ID")

    kit.run(main())


def test_a_background_response_is_answered_at_once_and_outlives_its_client(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: None)
        async with kit.talking(service) as client:
            made = await create(client, background=True, metadata={"a": "b"})
            response = made.json()
            assert (response["status"], response["background"]) == ("queued", True)
            (generation,) = service.generations
            assert generation.caller.leaving == CONTINUE
            path = f"/v1/responses/{response['id']}"
            generation.write(kit.token(1, "Hel"))
            assert (await client.get(path)).json()["status"] == "in_progress"
            generation.write(kit.token(2, "lo"), kit.finish(3))
            done = (await client.get(path)).json()
            assert done["status"] == "completed"
            assert done["output"][0]["content"][0]["text"] == "Hello"
            assert done["metadata"] == {"a": "b"}

    kit.run(main())


def test_a_background_response_is_cancelled_and_another_is_not(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            made = (await create(client, background=True)).json()
            cancelled = await client.post(f"/v1/responses/{made['id']}/cancel")
            assert cancelled.json()["status"] == "cancelled"
            assert cancelled.json()["error"] is None
            again = await client.post(f"/v1/responses/{made['id']}/cancel")
            assert again.json() == cancelled.json()
            assert (await client.get(f"/v1/responses/{made['id']}")).json() == cancelled.json()
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            made = (await create(client)).json()
            refused = await client.post(f"/v1/responses/{made['id']}/cancel")
            assert refused.status_code == 400
            assert "background" in refused.json()["error"]["message"]

    kit.run(main())


def test_an_error_is_a_status_without_a_stream_and_before_one(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.error(1, "engine_timeout")))
        async with kit.talking(service) as client:
            assert (await create(client)).status_code == 504
            assert (await create(client, stream=True)).status_code == 504
            found = await client.get(f"/v1/responses/resp_{service.generations[0].id[4:]}")
            assert found.json()["status"] == "failed"

    kit.run(main())


def test_too_many_tokens_are_refused_by_the_name_that_they_have_here(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        service.refuse = Sizes(max_tokens=5).check
        async with kit.talking(service) as client:
            body = {"model": "scripted", "input": "x", "max_output_tokens": 6}
            error = (await client.post("/v1/responses", json=body)).json()["error"]
            assert error["param"] == "max_output_tokens"
            assert error["message"].startswith("`max_output_tokens` is 6;")

    kit.run(main())


@pytest.mark.parametrize("path", ["", "/input_tokens"])
def test_an_engine_that_lacks_an_option_refuses_it_by_the_name_it_has_here(
    kit: Any, path: str
) -> None:
    class Service(kit.Service):  # type: ignore[misc, name-defined]
        async def count_prompt(self, request: Any) -> int:
            self.submit(request, Caller(), "", {})
            return 1

    async def main() -> None:
        async with kit.talking(Service(kit.hello)) as client:
            for fields, param in (
                ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
                ({"text": {"verbosity": "high"}}, "text.verbosity"),
                ({"mirostat": 2}, "mirostat"),
            ):
                body = {"model": "scripted", "input": "x"} | fields
                answer = await client.post(f"/v1/responses{path}", json=body)
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (400, "unsupported_option")
                assert error["param"] == param
                assert f"`{param}`" in error["message"]
            body = {"model": "scripted", "max_tokens": 1, "output_config": {"effort": "low"}}
            body["messages"] = [{"role": "user", "content": "x"}]
            answer = await client.post("/v1/messages", json=body)
            assert "`output_config.effort`" in answer.json()["error"]["message"]

    kit.run(main())


def test_what_an_engine_was_given_is_shown(kit: Any) -> None:
    class Service(kit.Service):  # type: ignore[misc, name-defined]
        def submit(self, request: Any, *rest: Any) -> Any:
            generation = super().submit(msgspec.structs.replace(request, extra=None), *rest)
            generation.request = request
            return generation

    async def main() -> None:
        async with kit.talking(Service(kit.hello)) as client:
            fields = {"reasoning": {"effort": "low"}, "text": {"verbosity": "high"}}
            said = (await create(client, **fields)).json()
            assert said["reasoning"] == {"effort": "low", "summary": None}
            assert said["text"] == {"format": {"type": "text"}, "verbosity": "high"}
            said = (await create(client, service_tier="priority")).json()
            assert said["reasoning"] == {"effort": None, "summary": None}
            assert (said["text"]["verbosity"], said["service_tier"]) == ("medium", "default")

    kit.run(main())


def test_one_that_is_not_stored_is_resumed_while_it_runs(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            body = {"model": "scripted", "input": "x", "store": False, "stream": True}
            answer = asyncio.create_task(client.post("/v1/responses", json=body))
            generation = await service.generation(0)
            assert not generation.request.keep
            assert (await client.get(f"/v1/responses/resp_{generation.id[4:]}")).status_code == 404
            headers = {"last-event-id": "1", "x-generation-id": generation.id}
            resumed = asyncio.create_task(client.post("/v1/responses", json=body, headers=headers))
            while generation.clients + len(generation.readers) < 3:
                generation.attached.clear()
                await generation.attached.wait()
            generation.write(kit.token(2, "b"), kit.finish(3))
            whole, rest = (await answer).text, (await resumed).text
        assert '"delta":"b"' in rest
        assert '"delta":"a"' not in rest
        assert whole.endswith(rest.removeprefix("retry: 5000\n"))

    kit.run(main())


def test_what_is_deleted_or_was_not_to_be_stored_is_not_found(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            kept = (await create(client)).json()["id"]
            deleted = (await create(client)).json()["id"]
            unstored = (await create(client, store=False)).json()
            assert unstored["store"] is False
            chat = await client.post(
                "/v1/chat/completions",
                json={"model": "scripted", "messages": [{"role": "user", "content": "x"}]},
            )
            gone = await client.delete(f"/v1/responses/{deleted}")
            assert gone.json() == {"id": deleted, "object": "response", "deleted": True}
            others = (deleted, unstored["id"], chat.json()["id"], "resp_x", "x")
            for id in others:
                path = f"/v1/responses/{id}"
                for answer in (
                    await client.get(path),
                    await client.get(f"{path}?stream=true"),
                    await client.delete(path),
                    await client.post(f"{path}/cancel"),
                    await client.get(f"{path}/input_items"),
                ):
                    assert answer.status_code == 404
                    assert answer.json()["error"]["code"] == "generation_not_found"
                followed = await create(client, previous_response_id=id)
                assert followed.status_code == 400
                assert followed.json()["error"]["param"] == "previous_response_id"
            assert (await client.get(f"/v1/responses/{kept}")).status_code == 200

    kit.run(main())


def test_another_tenant_finds_nothing(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"sk-1": "alice", "sk-2": "bob"})
        async with kit.talking(service) as client:
            alice = {"Authorization": "Bearer sk-1"}
            bob = {"Authorization": "Bearer sk-2"}
            made = await client.post("/v1/responses", json=ASK, headers=alice)
            path = f"/v1/responses/{made.json()['id']}"
            assert (await client.get(path, headers=alice)).status_code == 200
            assert (await client.get(path, headers=bob)).status_code == 404
            assert (await client.delete(path, headers=bob)).status_code == 404
            follow = ASK | {"previous_response_id": made.json()["id"]}
            refused = await client.post("/v1/responses", json=follow, headers=bob)
            assert refused.status_code == 400

    kit.run(main())


def test_a_conversation_goes_on_with_its_calls_and_without_old_instructions(kit: Any) -> None:
    def script(generation: Any) -> None:
        call = kit.ToolCallDelta(0, "call_1", "weather", '{"city":"Rome"}')
        turns = {
            1: [kit.token(1, "thinking", reasoning=True), kit.token(2, "", tool_calls=(call,))],
            2: [kit.token(1, "It is "), kit.token(2, "sunny.")],
            3: [kit.token(1, "Bye"), kit.token(2, ".")],
        }
        generation.write(*turns[len(service.generations)], kit.finish(3, "stop"))

    service = kit.Service(script)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}

    async def main() -> None:
        async with kit.talking(service) as client:
            first = (await create(client, instructions="Be brief.")).json()
            fields = {"input": [output], "previous_response_id": first["id"]}
            second = (await create(client, **fields)).json()
            third = await create(client, previous_response_id=second["id"], instructions="Be long.")
            assert third.json()["previous_response_id"] == second["id"]
            assert third.json()["instructions"] == "Be long."
            listed = await client.get(f"/v1/responses/{third.json()['id']}/input_items")
            items = listed.json()["data"]
            assert [item["content"] for item in items] == [[{"type": "input_text", "text": "Hi."}]]

    kit.run(main())
    function = {"name": "weather", "arguments": '{"city":"Rome"}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    conversation = [
        Message("user", "Hi."),
        Message("assistant", None, tool_calls=calls, reasoning_content="thinking"),
        Message("tool", "sunny", tool_call_id="call_1"),
    ]
    first, second, third = (list(one.request.messages) for one in service.generations)
    assert first == [Message("system", "Be brief."), conversation[0]]
    assert second == conversation
    assert third == [
        Message("system", "Be long."),
        *conversation,
        Message("assistant", "It is sunny."),
        Message("user", "Hi."),
    ]


def test_only_a_whole_answer_is_followed(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: None)
        async with kit.talking(service) as client:
            made = (await create(client, background=True)).json()
            early = await create(client, previous_response_id=made["id"])
            assert early.status_code == 409
            service.generations[0].write(kit.token(1, "a"), kit.error(2))
            failed = await create(client, previous_response_id=made["id"])
            assert failed.status_code == 400
            assert failed.json()["error"]["param"] == "previous_response_id"

    kit.run(main())


def test_input_items_are_listed_in_pages_from_either_end(kit: Any) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    image = {"type": "input_image", "image_url": "https://x/y.png"}
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "See: "}, image]},
        {"role": "assistant", "content": "Let me see."},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c1", "output": [image]},
    ]

    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            made = (await create(client, input=items, instructions="x")).json()
            path = f"/v1/responses/{made['id']}/input_items"

            async def page(**query: Any) -> Any:
                return (await client.get(path, params=query)).json()

            whole = await page(order="asc")
            found = whole["data"]
            assert [item["type"] for item in found] == [
                *["message"] * 3,
                "function_call",
                *["function_call_output"] * 2,
            ]
            assert found[0]["content"] == [{"type": "input_text", "text": "Be brief."}]
            assert found[1]["content"][1]["image_url"] == "https://x/y.png"
            assert found[2]["content"][0]["type"] == "output_text"
            assert {name: found[3][name] for name in call} == call
            assert found[4]["output"] == "sunny"
            assert found[5]["output"][0]["type"] == "input_image"
            assert (await page())["data"] == found[::-1]
            part = await page(order="asc", limit=2, after=found[1]["id"])
            assert part["data"] == found[2:4]
            ends = (part["first_id"], part["last_id"], part["has_more"])
            assert ends == (found[2]["id"], found[3]["id"], True)
            last = await page(order="asc", after=found[-1]["id"])
            assert (last["data"], last["first_id"], last["has_more"]) == ([], None, False)
            for query, param in (
                ({"limit": 0}, "limit"),
                ({"limit": 101}, "limit"),
                ({"limit": "x"}, "limit"),
                ({"order": "up"}, "order"),
                ({"after": "msg_x"}, "after"),
            ):
                refused = await page(**query)
                assert refused["error"]["param"] == param

    kit.run(main())


def test_a_client_that_leaves_cancels_what_is_not_in_the_background(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.talking(service) as client:
            for fields in ({}, {"stream": True}):
                number = len(service.generations)
                with pytest.raises(Exception):  # noqa: B017, PT011 - httpx has several
                    await client.post("/v1/responses", json=ASK | fields, timeout=0.5)
                generation = await service.generation(number)
                await generation.left.wait()
                assert generation.clients == 0

    kit.run(main())


def test_what_was_added_in_mid_stream_is_in_the_conversation_that_goes_on(kit: Any) -> None:
    def script(generation: Any) -> None:
        if len(generation.request.messages) > 1:
            kit.hello(generation)
            return
        generation.write(
            kit.prompt(1, "user", "Hi."),  # a hook's: the request has it
            kit.token(2, "One, "),
            kit.prompt(3, "user", "Faster!"),
            kit.prompt(4, "system", "Obey."),
            kit.token(5, "two."),
            kit.finish(6),
        )

    async def main() -> None:
        service = kit.Service(script)
        async with kit.talking(service) as client:
            first = (await client.post("/v1/responses", json=ASK)).json()
            follow = ASK | {"input": "Go on.", "previous_response_id": first["id"]}
            assert (await client.post("/v1/responses", json=follow)).status_code == 200
        assert [(m.role, m.content) for m in service.generations[1].request.messages] == [
            ("user", "Hi."),
            ("assistant", "One, "),
            ("user", "Faster!"),
            ("system", "Obey."),
            ("assistant", "two."),
            ("user", "Go on."),
        ]

    kit.run(main())
