from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.delta import Delta
from headrace.domain.request import Message, Request, TextPart
from headrace.engines.llama_tools import CallReader, without_tools

json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}}}
TREE = {
    "type": "function",
    "function": {
        "name": "tree",
        "parameters": {
            "properties": {"root": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        },
    },
}


@given(
    st.text(min_size=1),
    st.dictionaries(st.text(), json_),
    st.sampled_from([None, 2]),
    st.lists(st.integers(0, 300)),
)
def test_a_call_is_read_from_any_pieces(name, arguments, indent, cuts):
    text = json.dumps({"name": name, "arguments": arguments}, indent=indent)
    places = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]
    reader = CallReader()
    deltas = [Delta(text[at:end], 0, (at,)) for at, end in pairwise(places)]
    pieces = [call for delta in reader.through(deltas) for call in delta.tool_calls]
    assert reader.over
    assert [piece.name for piece in pieces if piece.id] == [name]
    assert json.loads("".join(piece.arguments for piece in pieces)) == arguments


def test_a_call_that_was_cut_off_is_not_over():
    reader = CallReader()
    (delta,) = reader.through([Delta('{"name": "clock", "arguments": {"a": "}"')])
    assert delta.tool_calls[0].arguments == '{"a": "}"'
    assert not reader.over


def test_a_schema_keeps_its_references():
    request = Request("m", "chat", (Message("user", "x"),), tools=[CLOCK, TREE])
    schema = without_tools(request).response_format["json_schema"]["schema"]
    assert schema["anyOf"][1]["properties"]["arguments"] == {"$ref": "#/$defs/tool1"}
    tree = schema["$defs"]["tool1"]
    assert tree["properties"]["root"] == {"$ref": "#/$defs/tool1/$defs/node"}
    assert tree["$defs"]["node"]["items"] == {"$ref": "#/$defs/tool1/$defs/node"}
    assert schema["$defs"]["tool0"] == {"type": "object", "additionalProperties": False}


def test_functions_are_told_in_the_system_message_and_calls_are_text():
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = (
        Message("system", [TextPart("Be brief.")]),
        Message("assistant", "Wait.", tool_calls=[call]),
        Message("tool", "noon", tool_call_id="1"),
    )
    request = Request("m", "chat", messages, tools=[CLOCK])
    told, said, result = without_tools(request).messages
    assert told.content.startswith("Be brief.")
    assert '"name": "clock"' in told.content
    assert said == Message("assistant", 'Wait.\n{"name": "clock", "arguments": {}}')
    assert result == Message("user", "The function's result: noon")


def parameters_of(tool):
    request = Request("m", "chat", (Message("user", "x"),), tools=[tool])
    return without_tools(request).response_format["json_schema"]["schema"]["$defs"]["tool0"]


@pytest.mark.parametrize("said", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_function_that_declares_no_parameter_gets_none(said):
    tool = {"type": "function", "function": {"name": "clock", "parameters": said}}
    assert parameters_of(tool)["additionalProperties"] is False


def test_a_schema_that_declares_its_properties_elsewhere_is_not_closed():
    said = {"anyOf": [{"properties": {"a": {"type": "string"}}}]}
    tool = {"type": "function", "function": {"name": "clock", "parameters": said}}
    assert "additionalProperties" not in parameters_of(tool)
