"""Bodies of the Responses API into requests: items, tools, formats; every refusal names its field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseFormatTextJSONSchemaConfigParam,
    ResponseTextConfigParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared_params import Reasoning
from tests.json_values import json_values

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Message, Request, TextPart
from headrace.protocols.responses_request import (
    Earlier,
    ReasoningOptions,
    ResponsesBody,
    ResponseTerms,
    SchemaFormat,
    TextOptions,
    decode_responses,
    response_request,
)

BODY = {"model": "m", "input": "Hi."}
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Says it.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}


NOTHING = Earlier()


def asked(earlier: Earlier = NOTHING, /, **fields: Any) -> tuple[Request, ResponseTerms]:
    body = {name: value for name, value in (BODY | fields).items() if value is not ...}
    return response_request(*decode_responses(json.dumps(body).encode()), earlier)


def messages(*items: Any, **fields: Any) -> tuple[Message, ...]:
    return asked(input=list(items), **fields)[0].messages


def refusal(**fields: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        asked(**fields)
    return caught.value


def test_a_text_becomes_a_request() -> None:
    request, terms = asked(
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=1,
        frequency_penalty=-1,
        stream=True,
        metadata={"a": "b"},
        safety_identifier="u",
        parallel_tool_calls=False,
        top_k=4,
    )

    assert request.messages == (Message("system", "Be brief."), Message("user", "Hi."))
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 0.9)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert sampling.logprobs is None
    assert request.stream
    assert request.user == "u"
    assert request.parallel_tool_calls is False
    assert request.extra == {"top_k": 4}
    assert (terms.instructions, terms.metadata) == ("Be brief.", {"a": "b"})
    assert request.keep


def test_items_become_messages() -> None:
    found = messages(
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is "},
                {"type": "input_text", "text": "this?"},
            ],
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "phase": None,
            "content": [
                {"type": "output_text", "text": "A mill", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "."},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
                {"type": "input_image", "image_url": "https://x/y.png", "file_id": None},
            ],
        },
    )

    assert found == (
        Message("developer", "Be brief."),
        Message("user", "What is this?"),
        Message("assistant", "A mill."),
        Message(
            "user",
            [
                TextPart("And this?"),
                ImagePart({"url": "data:image/png;base64,AA", "detail": "low"}),
                ImagePart({"url": "https://x/y.png"}),
            ],
        ),
    )


def call(id: str, arguments: str = '{"a":1}') -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": "weather", "arguments": arguments},
    }


def test_a_run_of_calls_is_one_message_with_what_was_said_before_it() -> None:
    said = {"role": "assistant", "content": "Let me see."}
    other = CALL | {"call_id": "c2"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    outputs = [OUTPUT, OUTPUT | {"call_id": "c2", "output": [{"type": "input_text", "text": "x"}]}]

    assert messages(
        {"role": "user", "content": "?"}, thought, said, CALL, thought, other, *outputs
    ) == (
        Message("user", "?"),
        Message("assistant", "Let me see.", tool_calls=[call("c1"), call("c2")]),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("tool", "x", tool_call_id="c2"),
    )
    assert messages(CALL, OUTPUT, CALL) == (
        Message("assistant", None, tool_calls=[call("c1")]),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("assistant", None, tool_calls=[call("c1")]),
    )


def test_fields_that_are_null_are_as_if_they_were_not_there() -> None:
    """The SDK gives back an item of an answer with all its fields."""
    nulls = {"id": None, "status": None, "caller": None, "namespace": None, "name_": None}

    assert messages(CALL | nulls, OUTPUT | nulls) == messages(CALL, OUTPUT)


def test_a_conversation_goes_on_behind_the_instructions() -> None:
    earlier = Earlier((Message("user", "My name is Ann."), Message("assistant", "Hello!")))
    request, terms = asked(earlier, instructions="Be brief.", previous_response_id="resp_x")

    assert [message.content for message in request.messages] == [
        "Be brief.",
        "My name is Ann.",
        "Hello!",
        "Hi.",
    ]
    assert terms.before == 2
    request, _ = asked(earlier, input=..., previous_response_id="resp_x")
    assert request.messages == earlier.messages


def test_tools_and_choices_are_those_of_chat_one_level_deeper() -> None:
    nulls = {"type": "function", "name": "f", "description": None, "parameters": None}
    request, _ = asked(tools=[TOOL, nulls], tool_choice={"type": "function", "name": "weather"})

    function = {name: TOOL[name] for name in ("name", "description", "parameters", "strict")}
    assert request.tools == [
        {"type": "function", "function": function},
        {"type": "function", "function": {"name": "f"}},
    ]
    assert request.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert asked(tools=[])[0].tools is None
    assert asked(tool_choice="required")[0].tool_choice == "required"


def test_formats_are_those_of_chat_one_level_deeper() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "name": "n", "schema": schema, "strict": None}

    def of(**text: Any) -> Any:
        return asked(text=text)[0].response_format

    assert of(format=wanted) == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema},
    }
    assert of(format={"type": "json_object"}) == {"type": "json_object"}
    assert of(format={"type": "text"}, verbosity="medium") is None
    assert of() is None


def test_probabilities_come_if_one_way_or_the_other_asks_for_them() -> None:
    def of(**fields: Any) -> int | None:
        return asked(**fields)[0].sampling.logprobs

    assert of(top_logprobs=3) == 3
    assert of(include=["message.output_text.logprobs"]) == 0
    assert of(include=["reasoning.encrypted_content"], top_logprobs=0) is None


def test_an_option_of_some_engines_is_left_to_them() -> None:
    request, _ = asked(reasoning={"effort": "low"}, text={"verbosity": "high"}, top_k=4)
    assert request.extra == {"reasoning_effort": "low", "verbosity": "high", "top_k": 4}


def test_what_was_thought_belongs_to_what_was_said_or_called_then() -> None:
    def thought(*said: str) -> dict[str, Any]:
        content = [{"type": "reasoning_text", "text": text} for text in said]
        return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}

    answer = {"role": "assistant", "content": "Sunny."}
    assert messages(thought("Hm", "."), CALL, OUTPUT, thought("So."), answer, thought("?")) == (
        Message("assistant", None, tool_calls=[call("c1")], reasoning_content="Hm."),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("assistant", "Sunny.", reasoning_content="So."),
    )
    assert messages(thought("a"), answer, thought("b"), CALL) == (
        Message("assistant", "Sunny.", tool_calls=[call("c1")], reasoning_content="ab"),
    )


def test_every_field_that_the_sdk_knows_is_known_here() -> None:
    """Honoured, harmless, or refused by its name; what nobody here knows would be left to the engine."""
    theirs = set(ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert theirs - set(ResponsesBody.__struct_fields__) == set()
    for ours, field in (
        (TextOptions, ResponseTextConfigParam),
        (ReasoningOptions, Reasoning),
        (SchemaFormat, ResponseFormatTextJSONSchemaConfigParam),
    ):
        assert set(field.__annotations__) - set(ours.__struct_fields__) == set()


def test_what_asks_for_nothing_is_no_refusal() -> None:
    request, _ = asked(
        truncation="disabled",
        reasoning={"effort": "none", "summary": None, "context": "auto", "mode": "standard"},
        context_management=[],
        stream_options={"include_obfuscation": False},
        service_tier="auto",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        max_tool_calls=4,
        store=True,
        background=False,
        user="u",
    )

    assert request.user == "u"
    assert request.extra is None


UNSUPPORTED = [
    ({"truncation": "auto"}, "truncation"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"background_options": {"continuation_id": "x"}}, "background_options"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"access_programs": {"cyber": "standard"}}, "access_programs"),
    ({"image": {"context_compression": "auto"}}, "image"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"reasoning": {"generate_summary": "auto"}}, "reasoning.generate_summary"),
    ({"include": ["file_search_call.results"]}, "include"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, {"type": "custom", "name": "x"}]}, "tools[1].type"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ({"input": [{"type": "computer_call"}]}, "input[0].type"),
    ({"input": [{"type": 1}]}, "input[0].type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
        "input[0].content[0].type",
    ),
    ({"input": [OUTPUT | {"output": [{"type": "input_file"}]}]}, "input[0].output[0].type"),
]
INVALID = [
    ({"model": ...}, "model"),
    ({"model": ""}, "model"),
    ({"input": ...}, "input"),
    ({"input": []}, "input"),
    ({"input": 3}, "input"),
    ({"input": ["x"]}, "input[0]"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": "x", "wrong": 1}]}, "input[0].wrong"),
    ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
        "input[0].content[0].image_url",
    ),
    ({"input": [CALL | {"name": ""}]}, "input[0].name"),
    ({"input": [CALL | {"arguments": {}}]}, "input[0].arguments"),
    ({"input": [OUTPUT | {"call_id": None}]}, "input[0].call_id"),
    ({"input": [{"type": "reasoning", "summary": ["x"]}]}, "input[0].summary[0]"),
    ({"input": [{"type": "reasoning", "content": [{}]}]}, "input[0].content[0].text"),
    ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    ({"reasoning": {"wrong": 1}}, "reasoning.wrong"),
    ({"previous_response_id": "x" * 129}, "previous_response_id"),
    ({"background": True, "store": False}, "background"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"max_tool_calls": 2**70}, "max_tool_calls"),
    ({"temperature": 3}, "temperature"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"metadata": {"a": 1}}, "metadata[...]"),
    ({"metadata": {"a" * 65: "x"}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"text": {"wrong": 1}}, "text.wrong"),
    ({"text": {"format": {"type": "x"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    (
        {"text": {"format": {"type": "json_schema", "name": 3, "schema": {}}}},
        "text.format.name",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [TOOL | {"parameters": []}]}, "tools[0].parameters"),
    ({"tools": [TOOL | {"wrong": 1}]}, "tools[0].wrong"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"stream": "yes"}, "stream"),
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


fields = st.sampled_from(
    sorted({name for of in (UNSUPPORTED, INVALID) for one, _ in of for name in one} | {"other"})
)
PARTS = [*({"type": kind} for kind in ("input_text", "input_image", "refusal", "x")), "x"]
item_fields = st.dictionaries(
    st.sampled_from(["type", "role", "content", "output", "call_id", "name", "arguments", "id"]),
    json_values
    | st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "user"])
    | st.lists(st.sampled_from(PARTS), max_size=2),
    max_size=5,
)


def is_request_or_4xx(body: Any) -> None:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    try:
        request, terms = response_request(*decode_responses(encoded), Earlier())
    except HeadraceError as error:
        refused = error
    else:
        for value in (request, terms):
            stored = msgspec.msgpack.encode(value)
            assert msgspec.msgpack.decode(stored, type=type(value)) == value
        return
    assert 400 <= refused.meaning.http < 500
    assert refused.message.encode()


@settings(deadline=None)
@given(body=json_values, changes=st.dictionaries(fields, json_values, max_size=3))
def test_any_json_is_a_request_or_a_4xx(body: Any, changes: dict[str, Any]) -> None:
    is_request_or_4xx(body)
    is_request_or_4xx(BODY | changes)


@settings(deadline=None)
@given(items=st.lists(item_fields | st.sampled_from([CALL, OUTPUT]), max_size=4))
def test_any_items_are_a_request_or_a_4xx(items: list[dict[str, Any]]) -> None:
    is_request_or_4xx(BODY | {"input": items})
    is_request_or_4xx(BODY | {"tools": items, "tool_choice": items[0] if items else None})
    is_request_or_4xx(BODY | {"text": {"format": items[0] if items else None}})


@settings(deadline=None)
@given(data=st.data())
def test_any_damage_to_the_bytes_is_a_request_or_a_4xx(data: st.DataObject) -> None:
    whole = BODY | {"tools": [TOOL], "input": [CALL, OUTPUT], "metadata": {"é": "ü"}}
    body = bytearray(json.dumps(whole, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    is_request_or_4xx(bytes(body))
