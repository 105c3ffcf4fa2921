"""openai-python's Responses reads every answer unchanged, with its strict validation on."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest
from tests.openai_client import talk

HELLO = "Hello wörld 😀\n"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Says what it is like.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def everything(kit: Any) -> Any:
    """Thoughts, probabilities, two calls."""
    entry = kit.TokenLogprob("a", -0.5, (97,), (("a", -0.5, (97,)), ("b", -1.5, ())))

    def script(generation: Any) -> None:
        call = kit.ToolCallDelta
        generation.write(
            kit.progress(1, "queued", position=1),
            kit.token(2, "Let me see.", reasoning=True),
            kit.token(3, "a", logprobs=(entry,)),
            kit.token(4, "", tool_calls=(call(0, "call_1", "weather", ""),)),
            kit.token(5, "", tool_calls=(call(0, None, None, '{"city":'),)),
            kit.token(6, "", tool_calls=(call(0, None, None, '"Paris"}'),)),
            kit.token(7, "", tool_calls=(call(1, "call_2", "weather", '{"city":"Rome"}'),)),
            kit.finish(8, "tool_calls"),
        )

    return script


def test_a_whole_response(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        answer = await client.responses.create(
            model="scripted",
            input="Hi.",
            instructions="Be brief.",
            metadata={"a": "b"},
            temperature=0.5,
            max_output_tokens=9,
            tools=[TOOL],
            tool_choice={"type": "function", "name": "weather"},
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            service_tier="flex",
            user="u",
        )
        assert answer.output_text == HELLO
        assert answer.status == "completed"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 8
        assert answer.usage.input_tokens_details.cached_tokens == 2
        assert (answer.instructions, answer.metadata, answer.temperature) == (
            "Be brief.",
            {"a": "b"},
            0.5,
        )
        assert (answer.max_output_tokens, answer.service_tier) == (9, "default")
        assert answer.tools[0].to_dict() == TOOL
        assert answer.tool_choice.to_dict() == {"type": "function", "name": "weather"}
        assert answer._request_id
        again = await client.responses.retrieve(answer.id)
        assert again.to_dict() == answer.to_dict()

    talk(kit, kit.Service(kit.hello), conversation)


def test_a_stream_of_everything(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        stream = await client.responses.create(
            model="scripted",
            input="Hi.",
            stream=True,
            tools=[TOOL],
            top_logprobs=2,
            include=["message.output_text.logprobs"],
        )
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert {event.type for event in events} >= {
            "response.reasoning_text.delta",
            "response.output_text.delta",
            "response.function_call_arguments.done",
        }
        final = events[-1]
        assert final.type == "response.completed"
        reasoning, message, first, second = final.response.output
        assert reasoning.type == "reasoning"
        assert reasoning.content is not None
        assert reasoning.content[0].text == "Let me see."
        assert message.type == "message"
        assert message.content[0].type == "output_text"
        assert message.content[0].logprobs is not None
        assert message.content[0].logprobs[0].top_logprobs[1].token == "b"
        assert first.type == second.type == "function_call"
        assert (first.call_id, first.arguments) == ("call_1", '{"city":"Paris"}')

    talk(kit, kit.Service(everything(kit)), conversation)


def test_the_stream_helper_puts_the_response_together(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        async with client.responses.stream(
            model="scripted", input="Hi.", tools=[TOOL], top_logprobs=1
        ) as stream:
            deltas = [event.delta async for event in stream if hasattr(event, "delta")]
            final = await stream.get_final_response()
        assert deltas == ["Let me see.", "a", '{"city":', '"Paris"}', '{"city":"Rome"}']
        assert final.output_text == "a"
        call = final.output[2]
        assert call.type == "function_call"
        assert call.parsed_arguments == {"city": "Paris"}

    talk(kit, kit.Service(everything(kit)), conversation)


def test_calls_both_ways_by_items_and_by_previous_response(kit: Any) -> None:
    """All items of an answer are given back as they came."""
    write = everything(kit)

    def script(generation: Any) -> None:
        answered = generation.request.messages[-1].role == "tool"
        (kit.hello if answered else write)(generation)

    service = kit.Service(script)

    async def conversation(client: openai.AsyncOpenAI) -> None:
        asked: Any = [{"role": "user", "content": "What is it like?"}]
        first = await client.responses.create(model="scripted", input=asked, tools=[TOOL])
        outputs: Any = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
            for item in first.output
            if item.type == "function_call"
        ]
        given: Any = [*asked, *first.output, *outputs]
        by_items = await client.responses.create(model="scripted", input=given, tools=[TOOL])
        by_id = await client.responses.create(
            model="scripted", input=outputs, previous_response_id=first.id, tools=[TOOL]
        )
        assert by_items.output_text == by_id.output_text == HELLO
        assert by_id.previous_response_id == first.id
        requests = [generation.request for generation in service.generations]
        assert requests[1].messages == requests[2].messages
        roles = [message.role for message in requests[2].messages]
        assert roles == ["user", "assistant", "tool", "tool"]
        assert requests[2].messages[1].content == "a"
        page = await client.responses.input_items.list(by_id.id)
        assert [item.type for item in page.data] == ["function_call_output"] * 2
        everyone = client.responses.input_items.list(by_items.id, order="asc", limit=2)
        kinds = [item.type async for item in everyone]
        assert kinds == [
            "message",
            "message",
            *["function_call"] * 2,
            *["function_call_output"] * 2,
        ]

    talk(kit, service, conversation)


def test_parse_reads_a_schema_and_its_answer(kit: Any) -> None:
    class City(pydantic.BaseModel):
        city: str

    def script(generation: Any) -> None:
        assert generation.request.response_format["json_schema"]["name"] == "City"
        generation.write(kit.token(1, '{"city": '), kit.token(2, '"Rome"}'), kit.finish(3))

    async def conversation(client: openai.AsyncOpenAI) -> None:
        answer = await client.responses.parse(model="scripted", input="Where?", text_format=City)
        assert answer.output_parsed == City(city="Rome")

    talk(kit, kit.Service(script), conversation)


def test_the_background_from_queued_to_cancelled(kit: Any) -> None:
    service = kit.Service(lambda generation: generation.write(kit.progress(1, position=3)))

    async def conversation(client: openai.AsyncOpenAI) -> None:
        made = await client.responses.create(model="scripted", input="Hi.", background=True)
        assert made.status == "in_progress"
        (generation,) = service.generations
        stream = await client.responses.retrieve(made.id, stream=True)
        generation.write(kit.token(2, "a"))
        seen = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                cancelled = await client.responses.cancel(made.id)
                assert cancelled.status == "cancelled"
        assert seen[-1].type == "response.failed"
        assert seen[-1].response.status == "cancelled"
        rest = await client.responses.retrieve(made.id, stream=True, starting_after=2)
        assert [event async for event in rest] == seen[3:]
        assert (await client.responses.retrieve(made.id)).status == "cancelled"

    talk(kit, service, conversation)


@pytest.mark.parametrize(
    ("code", "name", "status"),
    [("engine_failed", "response.failed", "failed"), ("", "response.incomplete", "incomplete")],
)
def test_other_ends(kit: Any, code: str, name: str, status: str) -> None:
    def script(generation: Any) -> None:
        end = kit.error(3, code, "It died.") if code else kit.finish(3, "length")
        generation.write(kit.token(1, "a"), kit.token(2, "b"), end)

    async def conversation(client: openai.AsyncOpenAI) -> None:
        stream = await client.responses.create(model="scripted", input="Hi.", stream=True)
        events = [event async for event in stream]
        assert events[-1].type == name
        found = await client.responses.retrieve(events[0].response.id)  # type: ignore[union-attr]
        assert found.status == status
        assert found.output_text == "ab"
        if code:
            assert found.error is not None
            assert (found.error.code, found.error.message) == ("server_error", "It died.")
        else:
            assert found.incomplete_details is not None
            assert found.incomplete_details.reason == "max_output_tokens"

    talk(kit, kit.Service(script), conversation)


def test_what_is_deleted_and_what_is_refused_are_its_exceptions(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        made = await client.responses.create(model="scripted", input="Hi.")
        assert await client.responses.delete(made.id) is None
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="scripted", input="Hi.", previous_response_id=made.id
            )
        assert caught.value.param == "previous_response_id"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(
                model="scripted", input="Hi.", tools=[{"type": "web_search"}]
            )
        assert (caught.value.param, caught.value.code) == ("tools[0].type", "unsupported_option")
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.create(model="other", input="Hi.")
        assert missing.value.code == "model_not_found"

    talk(kit, kit.Service(kit.hello), conversation)


def test_input_tokens_are_counted_with_what_went_before(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        count = client.responses.input_tokens.count
        found = await count(model="scripted", input="one two", instructions="three")
        assert found.input_tokens == 3
        made = await client.responses.create(model="scripted", input="Hi.")
        after = await count(model="scripted", input="Bye.", previous_response_id=made.id)
        assert after.input_tokens == len(f"Hi. {HELLO} Bye.".split())
        with pytest.raises(openai.BadRequestError):
            await count(model="scripted", input="x", previous_response_id="resp_x")

    talk(kit, kit.Service(kit.hello), conversation)
