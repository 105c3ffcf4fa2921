"""Anthropic's own SDK reads every answer unchanged, with its strict validation on."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

MESSAGES: Any = [{"role": "user", "content": "Hi."}]
HELLO = "Hello wörld 😀\n"
TOOL: Any = {
    "name": "weather",
    "description": "Says what it is like.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASK: Any = {"model": "scripted", "max_tokens": 99, "messages": MESSAGES}


def talk(kit: Any, service: Any, conversation: Any, **options: Any) -> None:
    async def main() -> None:
        async with (
            kit.serving(service, **options) as url,
            anthropic.AsyncAnthropic(
                base_url=url, api_key="sk-1", max_retries=0, _strict_response_validation=True
            ) as client,
        ):
            await conversation(client)

    kit.run(main())


def thinking_and_calling(kit: Any) -> Any:
    def script(generation: Any) -> None:
        call = kit.ToolCallDelta
        generation.write(
            kit.progress(1, "queued", position=1),
            kit.progress(2, "prefill", done=5, total=5),
            kit.token(3, "Let me ", reasoning=True),
            kit.token(4, "see.", reasoning=True),
            kit.token(5, "I look."),
            kit.token(6, "", tool_calls=(call(0, "call_1", "weather", ""),)),
            kit.token(7, "", tool_calls=(call(0, None, None, '{"city":'),)),
            kit.token(8, "", tool_calls=(call(0, None, None, '"Paris"}'),)),
            kit.token(9, "", tool_calls=(call(1, "call_2", "weather", '{"city":"Rome"}'),)),
            kit.finish(10, "tool_calls"),
        )

    return script


def test_a_whole_message(kit: Any) -> None:
    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        message = await client.messages.create(
            **ASK, system="Be brief.", metadata={"user_id": "u"}, extra_body={"temperature": 0.5}
        )
        assert message.id.startswith("msg_01")
        assert message.content[0].type == "text"
        assert message.content[0].text == HELLO
        assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (3, 2, 3)
        assert usage.cache_creation_input_tokens == 0
        assert message._request_id
        generation = service.generations[0]
        assert generation.id[4:] == message.id[4:]
        assert (generation.request.user, generation.request.sampling.temperature) == ("u", 0.5)

    service = kit.Service(kit.hello, keys={"sk-1": "alice"})
    talk(kit, service, conversation)
    assert service.generations[0].caller.tenant == "alice"


def test_a_stream_has_its_events_in_anthropics_order(kit: Any) -> None:
    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        stream = await client.messages.create(**ASK, stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]

    talk(kit, kit.Service(kit.hello), conversation)


def test_the_stream_helper_puts_thoughts_and_calls_together_as_the_whole_has_them(kit: Any) -> None:
    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        async with client.messages.stream(**ASK, tools=[TOOL]) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_message()
        assert {"thinking", "text", "input_json"} <= set(kinds)
        whole = await client.messages.create(**ASK, tools=[TOOL])
        assert [block.to_dict() for block in whole.content] == [
            {"type": "thinking", "thinking": "Let me see.", "signature": ""},
            {"type": "text", "text": "I look.", "citations": None},
            *(
                {
                    "type": "tool_use",
                    "id": id,
                    "name": "weather",
                    "input": {"city": city},
                    "caller": {"type": "direct"},
                }
                for id, city in (("call_1", "Paris"), ("call_2", "Rome"))
            ),
        ]
        assert [block.to_dict() for block in streamed.content] == [
            block.to_dict() for block in whole.content
        ]
        assert streamed.stop_reason == whole.stop_reason == "tool_use"
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
            assert getattr(streamed.usage, name) == getattr(whole.usage, name)

    talk(kit, kit.Service(thinking_and_calling(kit)), conversation)


def test_a_message_is_given_back_as_it_came_with_the_results_of_its_tools(kit: Any) -> None:
    write = thinking_and_calling(kit)

    def script(generation: Any) -> None:
        answered = any(message.role == "tool" for message in generation.request.messages)
        (kit.hello if answered else write)(generation)

    service = kit.Service(script)

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        first = await client.messages.create(**ASK, tools=[TOOL])
        results: Any = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
            for block in first.content
            if block.type == "tool_use"
        ]
        messages: Any = [*MESSAGES, {"role": "assistant", "content": first.content}]
        messages.append({"role": "user", "content": results})
        second = await client.messages.create(**ASK | {"messages": messages}, tools=[TOOL])
        assert second.content[0].type == "text"
        found = service.generations[1].request.messages
        assert [one.role for one in found] == ["user", "assistant", "tool", "tool"]
        assert (found[1].content, len(found[1].tool_calls)) == ("I look.", 2)
        assert (found[3].content, found[3].tool_call_id) == ("sunny", "call_2")

    talk(kit, service, conversation)


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", ".", ("stop_sequence", ".")),
        ("stop", "not asked for", ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("content_filter", None, ("refusal", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_why_it_stopped(kit: Any, reason: str, stop: str | None, expected: Any) -> None:
    def script(generation: Any) -> None:
        generation.write(kit.token(1, "a"), kit.finish(2, reason, stop=stop))

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        ask = ASK | {"stop_sequences": [".", "!"]}
        whole = await client.messages.create(**ask)
        assert (whole.stop_reason, whole.stop_sequence) == expected
        async with client.messages.stream(**ask) as stream:
            streamed = await stream.get_final_message()
        assert (streamed.stop_reason, streamed.stop_sequence) == expected

    talk(kit, kit.Service(script), conversation)


def test_arguments_cut_short_are_told_and_break_nothing(kit: Any) -> None:
    call = kit.ToolCallDelta(0, "call_1", "weather", '{"city":"Par')

    def script(generation: Any) -> None:
        generation.write(kit.token(1, "", tool_calls=(call,)), kit.finish(2, "length"))

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        whole = await client.messages.create(**ASK)
        assert whole.content[0].type == "tool_use"
        assert whole.content[0].input == {"INVALID_JSON": '{"city":"Par'}
        assert whole.stop_reason == "max_tokens"

    talk(kit, kit.Service(script), conversation)


def test_tokens_are_counted(kit: Any) -> None:
    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        messages: Any = [{"role": "user", "content": "one two three"}]
        count = await client.messages.count_tokens(
            model="scripted", messages=messages, system="four", tools=[TOOL]
        )
        assert count.input_tokens == 4
        assert not service.generations

    service = kit.Service(kit.hello)
    talk(kit, service, conversation)


def test_a_silent_stream_gets_pings(kit: Any) -> None:
    service = kit.Service(lambda generation: None)

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        response = await client.messages.with_raw_response.create(**ASK, stream=True)
        (generation,) = service.generations
        generation.write(kit.token(1, "a"), kit.finish(2))
        body = b"".join([piece async for piece in response.iter_bytes()])
        before, after = body.split(b"event: message_start\n")
        assert b'event: ping\ndata: {"type":"ping"}\n\n' in before
        assert after.count(b"event: ping") == 1, "the one that every message begins with"

    talk(kit, service, conversation, heartbeat_s=0.03)


def test_errors_are_its_exceptions_with_its_types(kit: Any) -> None:
    codes = iter(["queue_full", "engine_timeout", "rate_limited", "internal", "queue_timeout"])

    def script(generation: Any) -> None:
        generation.write(kit.error(1, next(codes), "It did not go."))

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        async def failure(**fields: Any) -> tuple[type, int, str]:
            with pytest.raises(anthropic.APIStatusError) as caught:
                await client.messages.create(**ASK | fields)
            body: Any = caught.value.body
            assert body["type"] == "error"
            assert body["error"]["message"]
            assert body["request_id"] == caught.value.response.headers["request-id"]
            return type(caught.value), caught.value.status_code, body["error"]["type"]

        overloaded = (anthropic.OverloadedError, 529, "overloaded_error")
        assert await failure() == overloaded
        assert await failure(stream=True) == (anthropic.GatewayTimeoutError, 504, "timeout_error")
        assert await failure() == (anthropic.RateLimitError, 429, "rate_limit_error")
        assert await failure() == (anthropic.InternalServerError, 500, "api_error")
        assert await failure(stream=True) == overloaded
        bad = (anthropic.BadRequestError, 400, "invalid_request_error")
        assert await failure(messages=[]) == bad
        assert await failure(thinking={"type": "enabled", "budget_tokens": 1024}) == bad
        missing = (anthropic.NotFoundError, 404, "not_found_error")
        assert await failure(model="other") == missing
        client.api_key = "sk-2"
        denied = (anthropic.AuthenticationError, 401, "authentication_error")
        assert await failure() == denied

    talk(kit, kit.Service(script, keys={"sk-1": "alice"}), conversation)


def test_an_error_in_mid_stream_is_its_exception(kit: Any) -> None:
    def script(generation: Any) -> None:
        generation.write(kit.token(1, "a"), kit.error(2, "engine_failed", "It died."))

    async def conversation(client: anthropic.AsyncAnthropic) -> None:
        stream = await client.messages.create(**ASK, stream=True)
        seen = [await anext(stream) for _ in range(3)]
        assert seen[2].type == "content_block_delta"
        with pytest.raises(anthropic.APIError, match=r"It died\.") as caught:
            await anext(stream)
        body: Any = caught.value.body
        assert body["error"]["type"] == "api_error"
        assert body["request_id"] == service.generations[0].caller.request_id

    service = kit.Service(script)
    talk(kit, service, conversation)
