"""Bodies of Anthropic's Messages API into requests, and its streams: resumed byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.types import (
    MessageCountTokensParams,
    OutputConfigParam,
    ToolParam,
)
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.json_values import json_values

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Message, Request, TextPart
from headrace.protocols.anthropic_request import (
    CountBody,
    MessagesBody,
    OutputConfig,
    Tool,
    decode_count,
    decode_messages,
)

BODY = {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
TOOL = {"name": "weather", "description": "Says it.", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
CALL = {
    "id": "toolu_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
PNG = {"type": "base64", "media_type": "image/png", "data": "AA=="}
CACHED = {"cache_control": {"type": "ephemeral"}}


def asked(**fields: Any) -> Request:
    body = {name: value for name, value in (BODY | fields).items() if value is not ...}
    return decode_messages(json.dumps(body).encode())[0]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def messages(*said: tuple[str, Any]) -> tuple[Message, ...]:
    return asked(messages=[{"role": role, "content": content} for role, content in said]).messages


def refusal(**fields: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        asked(**fields)
    return caught.value


def test_a_body_becomes_a_request() -> None:
    request = asked(
        system=[text("Be "), text("brief.") | CACHED],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["a", "b"],
        metadata={"user_id": "u"},
        stream=True,
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        thinking={"type": "disabled"},
        min_p=0.1,
    )

    assert request.messages == (Message("system", "Be brief."), Message("user", "Hi."))
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 0.9)
    assert (sampling.top_k, sampling.stop) == (40, ("a", "b"))
    assert request.stream
    assert request.user == "u"
    assert request.extra == {"min_p": 0.1}


def test_blocks_become_messages() -> None:
    call = CALL
    found = messages(
        ("user", [text("See "), text("this: "), {"type": "image", "source": PNG}]),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                text("Let me see.") | {"citations": None},
                USE | {"caller": {"type": "direct"}} | CACHED,
            ],
        ),
        ("user", [RESULT, RESULT | {"content": [text("r")], "is_error": True}, text("And?")]),
        ("assistant", [USE]),
        (
            "user",
            [RESULT | {"content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}],
        ),
        ("assistant", [{"type": "redacted_thinking", "data": "x"}]),
        ("assistant", "It is"),
    )

    assert found == (
        Message(
            "user",
            [
                TextPart("See "),
                TextPart("this: "),
                ImagePart({"url": "data:image/png;base64,AA=="}),
            ],
        ),
        Message("assistant", "Let me see.", tool_calls=[call], reasoning_content="Hm."),
        Message("tool", "sunny", tool_call_id="toolu_1"),
        Message("tool", "r", tool_call_id="toolu_1"),
        Message("user", "And?"),
        Message("assistant", None, tool_calls=[call]),
        Message("tool", [ImagePart({"url": "u"})], tool_call_id="toolu_1"),
        Message("assistant", "It is"),
    )


def test_what_was_thought_is_told_again() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert messages(("assistant", [thought, text("a"), thought, USE]), ("user", [RESULT])) == (
        Message("assistant", "a", tool_calls=[CALL], reasoning_content="Hm.Hm."),
        Message("tool", "sunny", tool_call_id="toolu_1"),
    )


def test_an_option_of_some_engines_is_left_to_them() -> None:
    assert asked(output_config={"effort": "low"}).extra == {"reasoning_effort": "low"}
    assert asked(thinking={"type": "adaptive", "display": "summarized"}).extra is None


def test_every_field_that_the_sdk_knows_is_known_here() -> None:
    """Honoured, harmless, or refused by its name; what nobody here knows would be left to the engine."""
    for ours, theirs in (
        (MessagesBody, MessageCreateParamsStreaming),
        (CountBody, MessageCountTokensParams),
        (OutputConfig, OutputConfigParam),
        (Tool, ToolParam),
    ):
        names = {name for kind in theirs.__mro__ for name in getattr(kind, "__annotations__", ())}
        assert names - set(ours.__struct_fields__) == set()


def test_where_the_assistant_speaks_last_the_answer_goes_on_from_it() -> None:
    user, begun = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Once"}
    request = asked(messages=[user, begun])
    assert (request.goes_on, request.messages[-1]) == (True, Message("assistant", "Once"))
    assert not asked(messages=[user, begun, user]).goes_on
    thought = [{"type": "thinking", "thinking": "Hm.", "signature": ""}]
    assert not asked(messages=[user, {"role": "assistant", "content": thought}]).goes_on
    error = refusal(messages=[user, {"role": "assistant", "content": [USE]}])
    assert (error.code, error.param) == (Code.INVALID_REQUEST, "messages")


def test_tools_and_choices_are_those_of_chat() -> None:
    examples = {"input_examples": [{"city": "Rome"}], "strict": True, "type": "custom"}
    request = asked(tools=[TOOL | CACHED | examples, {"name": "f", "input_schema": {}}])
    assert request.tools == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {"type": "object", "examples": [{"city": "Rome"}]},
                "description": "Says it.",
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "f", "parameters": {}}},
    ]
    for choice, expected in (
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ):
        assert asked(tool_choice=choice).tool_choice == expected
        assert asked(tool_choice=choice).parallel_tool_calls is None
    alone = asked(tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert alone.parallel_tool_calls is False


def test_a_schema_for_the_answer_is_that_of_chat() -> None:
    schema = {"type": "object"}
    request = asked(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert request.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }


def content(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


UNSUPPORTED = [
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"thinking": {"type": "between_tools"}}, "thinking"),
    ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
    ({"speed": "fast"}, "speed"),
    ({"container": "c"}, "container"),
    ({"inference_geo": "us"}, "inference_geo"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"context_management": {"edits": []}}, "context_management"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [TOOL | {"allowed_callers": ["x"]}]}, "tools[0].allowed_callers"),
    (content({"type": "document", "source": {}}), "messages[0].content[0].type"),
    (content(text("a"), USE), "messages[0].content[1].type"),
    (content(RESULT, role="assistant"), "messages[0].content[0].type"),
    (content(RESULT | {"content": [USE]}), "messages[0].content[0].content[0].type"),
    ({"system": [{"type": "image", "source": PNG}]}, "system[0].type"),
]
INVALID = [
    ({"max_tokens": ...}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"model": ...}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
    ({"system": 3}, "system"),
    ({"temperature": 3}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ({"metadata": {"x": 1}}, "metadata.x"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [TOOL | {"name": ""}]}, "tools[0].name"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "required"}}, "tool_choice.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    (content({"type": "text"}), "messages[0].content[0].text"),
    (content({"type": "image"}), "messages[0].content[0].source"),
    (
        content({"type": "image", "source": PNG | {"media_type": "text/x"}}),
        "messages[0].content[0].source",
    ),
    (content(RESULT | {"tool_use_id": None}), "messages[0].content[0].tool_use_id"),
    (content(USE | {"input": "x"}, role="assistant"), "messages[0].content[0].input"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
def test_what_nobody_here_has_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == (Code.UNSUPPORTED, param)
    assert f"`{param}`" in error.message


@pytest.mark.parametrize(("fields", "param"), INVALID)
def test_what_is_wrong_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == (Code.INVALID_REQUEST, param)
    assert f"`{param}`" in error.message


names = st.sampled_from(
    sorted({name for of in (UNSUPPORTED, INVALID) for one, _ in of for name in one} | {"other"})
)
blocks = st.dictionaries(
    st.sampled_from(["type", "text", "source", "id", "name", "input", "tool_use_id", "content"]),
    json_values | st.sampled_from(["text", "image", "tool_use", "tool_result", PNG, [RESULT]]),
    max_size=5,
)


def is_request_or_4xx(body: Any) -> None:
    encoded = msgspec.json.encode(body)
    for decode in (lambda raw: decode_messages(raw)[0], decode_count):
        try:
            request = decode(encoded)
        except HeadraceError as error:
            refused = error
        else:
            stored = msgspec.msgpack.encode(request)
            assert msgspec.msgpack.decode(stored, type=Request) == request
            continue
        assert 400 <= refused.meaning.http < 500
        assert refused.message.encode()


@settings(deadline=None)
@given(body=json_values, changes=st.dictionaries(names, json_values, max_size=3))
def test_any_json_is_a_request_or_a_4xx(body: Any, changes: dict[str, Any]) -> None:
    is_request_or_4xx(body)
    is_request_or_4xx(BODY | changes)
    is_request_or_4xx({"model": "m", "messages": BODY["messages"]} | changes)


@settings(deadline=None)
@given(
    found=st.lists(blocks | st.sampled_from([USE, RESULT, text("x")]), max_size=4),
    role=st.sampled_from(["user", "assistant", "system"]),
)
def test_any_blocks_are_a_request_or_a_4xx(found: list[Any], role: str) -> None:
    is_request_or_4xx(BODY | content(*found, role=role))
    is_request_or_4xx(BODY | {"tools": found, "system": found})


# The stream.


def test_a_stream_is_resumed_byte_for_byte_from_every_event(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            posted = await client.post("/v1/messages", json=BODY | {"stream": True})
            generation = posted.headers["x-generation-id"]
            head, whole = posted.content.split(b"\n", 1)
            assert head == b"retry: 5000"
            for seq in (2, 3, 4):
                cursor = {"Last-Event-ID": str(seq)}
                rest = whole[whole.index(b"id: %d\n" % seq) :].split(b"\n\n", 1)[1]
                again = await client.post(
                    "/v1/messages", headers=cursor | {"X-Generation-Id": generation}
                )
                events = f"/v1/generations/msg_{generation[4:]}/events?format=anthropic"
                read = await client.get(events, headers=cursor)
                assert again.content == read.content == head + b"\n" + rest
            over = await client.get(events, headers={"Last-Event-ID": "5"})
            assert over.status_code == 204
            lines = await client.get(events, headers={"Accept": "application/x-ndjson"})
            data = [line[6:] for line in whole.splitlines() if line.startswith(b"data: ")]
            assert lines.content.splitlines() == data
            unnamed = await client.post("/v1/messages", headers={"Last-Event-ID": "1"})
            assert unnamed.status_code == 400
            assert unnamed.json()["type"] == "error"

    kit.run(main())


def test_a_block_ends_where_the_next_begins(kit: Any) -> None:
    call = kit.ToolCallDelta

    def script(generation: Any) -> None:
        generation.write(
            kit.token(1, "Hm.", reasoning=True),
            kit.token(2, "a"),
            kit.token(3, "not of this choice", index=1),
            kit.token(4, "b"),
            kit.token(5, "", tool_calls=(call(0, "c0", "f", "{}"), call(1, "c1", "g", "{}"))),
            kit.token(6, "c"),
            kit.finish(7),
        )

    async def main() -> None:
        async with kit.talking(kit.Service(script)) as client:
            posted = await client.post(
                "/v1/messages",
                json=BODY | {"stream": True},
                headers={"Accept": "application/x-ndjson"},
            )
            said = [json.loads(line) for line in posted.content.splitlines()]
            deltas = [(one["type"][14:], one.get("index")) for one in said if "index" in one]
            assert deltas == [
                *(("start", 0), ("delta", 0), ("stop", 0)),
                *(("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)),
                *(("start", 2), ("delta", 2), ("stop", 2)),
                *(("start", 3), ("delta", 3), ("stop", 3)),
                *(("start", 4), ("delta", 4), ("stop", 4)),
            ]
            assert [one["type"] for one in said[:2]] == ["message_start", "ping"]
            assert said[-2]["delta"]["stop_reason"] == "tool_use"

    kit.run(main())


def test_the_prompts_tokens_are_in_its_beginning_if_they_are_known_by_then(kit: Any) -> None:
    def script(generation: Any) -> None:
        generation.write(
            kit.progress(1, "prefill", done=4, total=21), kit.token(2, "a"), kit.finish(3)
        )

    async def main() -> None:
        async with kit.talking(kit.Service(script)) as client:
            posted = await client.post("/v1/messages", json=BODY | {"stream": True})
            start = json.loads(posted.content.split(b"data: ")[1].split(b"\n")[0])
            assert start["message"]["usage"]["input_tokens"] == 21

    kit.run(main())


def test_an_api_key_comes_in_either_header(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello, keys={"sk-1": "a"})) as client:
            for headers, status in (
                ({"x-api-key": "sk-1"}, 200),
                ({"Authorization": "Bearer sk-1"}, 200),
                ({"x-api-key": "sk-2"}, 401),
                ({"x-api-key": "sk-1", "Authorization": "Bearer sk-2"}, 401),
                ({}, 401),
            ):
                answer = await client.post("/v1/messages", json=BODY, headers=headers)
                assert answer.status_code == status
                models = await client.get("/v1/models", headers=headers)
                assert models.status_code == status

    kit.run(main())
