"""Bodies into requests: strict, with the field's path in every refusal, and never anything but a 4xx."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.json_values import json_values

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Request, TextPart
from headrace.protocols.openai_request import Asked, decode_chat, decode_completion

USER = {"role": "user", "content": "Hi."}
CHAT = {"model": "m", "messages": [USER]}
COMPLETION = {"model": "m", "prompt": "One,"}


def chat(**fields: Any) -> Request:
    return decode_chat(json.dumps(CHAT | fields).encode())[0]


def completion(**fields: Any) -> Request:
    return decode_completion(json.dumps(COMPLETION | fields).encode())[0]


def refusal(decode: Callable[..., Any], *args: Any, **fields: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        decode(*args, **fields)
    return caught.value


def test_a_chat_request_becomes_a_request() -> None:
    request = chat(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        n=2,
        stop=["a", "b"],
        seed=-3,
        presence_penalty=1,
        frequency_penalty=-1,
        repeat_penalty=1.1,
        logit_bias={"12": -100},
        logprobs=True,
        top_logprobs=5,
        user="u",
        stream=True,
    )

    assert request.kind == "chat"
    assert request.messages[0].content == "Hi."
    assert request.stream
    assert request.user == "u"
    assert msgspec.to_builtins(request.sampling) == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "stop": ("a", "b"),
        "seed": -3,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repeat_penalty": 1.1,
        "logit_bias": {"12": -100.0},
        "logprobs": 5,
        "n": 2,
    }


def test_content_parts_are_texts_and_images() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    message = chat(messages=[{"role": "user", "content": parts}]).messages[0]

    assert isinstance(message.content, list)
    assert [type(part) for part in message.content] == [TextPart, ImagePart]


def test_max_completion_tokens_wins_over_the_older_name() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).sampling.max_tokens == 7


def test_logprobs_without_a_number_are_the_chosen_tokens_only() -> None:
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=False).sampling.logprobs is None
    assert chat().sampling.logprobs is None


def test_one_stop_string_is_a_list_of_one() -> None:
    assert chat(stop="x").sampling.stop == ("x",)
    assert chat(stop=[]).sampling.stop == ()
    assert chat(stop=None).sampling.stop == ()


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (None, ("",)),
    ],
)
def test_the_four_forms_of_a_prompt(prompt: Any, prompts: Any) -> None:
    assert completion(prompt=prompt).prompts == prompts


def test_a_completion_has_openais_default_length() -> None:
    assert completion().sampling.max_tokens == 16
    assert completion(max_tokens=99).sampling.max_tokens == 99


def test_include_usage_is_remembered_for_the_wire() -> None:
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}

    assert decode_chat(json.dumps(body).encode())[1] == {"usage": True}


def test_what_clients_send_without_meaning_anything_here_is_taken() -> None:
    request = chat(
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        modalities=["text"],
        function_call="none",
        functions=[],
        reasoning_effort=None,
        priority=3,
        unknown_but_null=None,
    )

    assert request.user == "s"
    assert request.extra is None


def test_what_is_not_to_be_stored_is_not_kept() -> None:
    assert not chat(store=False).keep
    assert chat(store=None).keep
    assert chat().keep


def test_an_option_that_nobody_here_knows_is_left_to_the_engine() -> None:
    assert chat(mirostat=2, dry_base=1.5).extra == {"mirostat": 2, "dry_base": 1.5}


def test_an_option_of_some_engines_is_left_to_them() -> None:
    request = chat(reasoning_effort="low", verbosity="high", mirostat=2)
    assert request.extra == {"reasoning_effort": "low", "verbosity": "high", "mirostat": 2}
    assert chat(reasoning_effort="none", verbosity="medium").extra is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a", "format": "wav"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("moderation", {"model": "m"}),
    ],
)
def test_an_option_that_the_server_lacks_is_refused_by_name(field: str, value: Any) -> None:
    error = refusal(chat, **{field: value})

    assert (error.code, error.param) == (Code.UNSUPPORTED, field)
    assert field in error.message


@pytest.mark.parametrize(("field", "value"), [("suffix", "x"), ("best_of", 3)])
def test_a_completion_option_that_the_server_lacks_is_refused_by_name(
    field: str, value: Any
) -> None:
    error = refusal(completion, **{field: value})

    assert (error.code, error.param) == (Code.UNSUPPORTED, field)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BAD_CHAT: list[tuple[str, Any, str]] = [
    ("model", 1, "model"),
    ("model", "", "model"),
    ("messages", "x", "messages"),
    ("messages", [], "messages"),
    ("messages", [{"role": "robot", "content": "x"}], "messages[0].role"),
    ("messages", [USER, {"content": "x"}], "messages[1].role"),
    ("messages", [{"role": "user"}], "messages[0].content"),
    ("messages", [{"role": "user", "content": None}], "messages[0].content"),
    ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
    (
        "messages",
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        "messages[0].content[0].type",
    ),
    (
        "messages",
        [{"role": "assistant", "tool_calls": [{"type": "function"}]}],
        "messages[0].tool_calls[0].function",
    ),
    ("temperature", 2.1, "temperature"),
    ("temperature", -0.1, "temperature"),
    ("temperature", "1", "temperature"),
    ("top_p", 1.5, "top_p"),
    ("n", 0, "n"),
    ("n", 17, "n"),
    ("n", 1.5, "n"),
    ("n", True, "n"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", "9", "max_tokens"),
    ("max_completion_tokens", -1, "max_completion_tokens"),
    ("stop", ["x"] * 17, "stop"),
    ("stop", "", "stop"),
    ("stop", ["a", ""], "stop[1]"),
    ("stop", 5, "stop"),
    ("seed", 2**63, "seed"),
    ("seed", 0.5, "seed"),
    ("top_logprobs", 21, "top_logprobs"),
    ("top_logprobs", 2, "top_logprobs"),
    ("logprobs", 1, "logprobs"),
    ("logit_bias", {"x": 1}, "logit_bias"),
    ("logit_bias", {"1": 101}, "logit_bias[...]"),
    ("presence_penalty", 3, "presence_penalty"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": True}, "stream_options"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
    ("tools", [{"type": "function"}], "tools[0].function"),
    ("tools", [{"type": "function", "function": {}}], "tools[0].function.name"),
    ("tools", [TOOL, {"type": "web_search"}], "tools[1].type"),
    ("tools", [TOOL] * 129, "tools"),
    ("tool_choice", "maybe", "tool_choice"),
    ("tool_choice", {"type": "function", "function": {}}, "tool_choice.function.name"),
    ("response_format", {"type": "xml"}, "response_format.type"),
    ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"schema": 3}},
        "response_format.json_schema.schema",
    ),
    ("user", "x" * 513, "user"),
]


@pytest.mark.parametrize(("field", "value", "path"), BAD_CHAT)
def test_a_wrong_value_is_refused_with_its_path(field: str, value: Any, path: str) -> None:
    error = refusal(chat, **{field: value})

    assert error.meaning.http == 400
    assert error.param == path
    assert f"`{path}`" in error.message


@pytest.mark.parametrize(
    ("prompt", "path"),
    [
        ([], "prompt"),
        ([[]], "prompt[0]"),
        (["a", 1], "prompt"),
        ([[1], "a"], "prompt"),
        ([-1], "prompt[0]"),
        ([True], "prompt[0]"),
        ({"a": 1}, "prompt"),
        (["a"] * 129, "prompt"),
    ],
)
def test_a_wrong_prompt_is_refused_with_its_path(prompt: Any, path: str) -> None:
    error = refusal(completion, prompt=prompt)

    assert (error.code, error.param) == (Code.INVALID_REQUEST, path)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b'{"model": "m", "messages": [}',
        b"\xff\xfe{}",
        b'{"model": "\xff", "messages": []}',
        b'{"model": "\\ud800", "messages": []}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\udfff"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "a\x00b"}]}',
        b'{"model": "m", "temperature": NaN}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}]} trailing',
        b"[" * 100_000,
        b'{"messages": ' + b'[{"tool_calls": [{"a": ' * 20_000,
        b'{"model": "m", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"model": "m", "messages": [], "tools": [{"a": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}]}",
    ],
)
def test_what_is_not_json_is_said_to_be_so(body: bytes) -> None:
    error = refusal(decode_chat, body)

    assert error.code in (Code.INVALID_JSON, Code.INVALID_REQUEST)
    assert error.message.encode("utf-8")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    error = refusal(decode_chat, body)

    assert (error.code, error.param) == (Code.INVALID_REQUEST, None)


@pytest.mark.parametrize("number", [b"1" * 5000, b"1e999", b"-1e999", b"1" * 400 + b".5"])
def test_a_number_that_nothing_can_hold_is_refused(number: bytes) -> None:
    for field in (b"seed", b"temperature", b"unheard_of"):
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"' + field + b'":'
        assert refusal(decode_chat, body + number + b"}").meaning.http == 400


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value", [nested(65), [2**64], {"a": [-(2**63) - 1]}, [[0] * 9_000, [0] * 9_000]]
)
def test_a_free_form_value_that_could_not_be_stored_is_refused(value: Any) -> None:
    function = {"name": "f", "parameters": {"x": value}, "arguments": "{}"}
    call = {"type": "function", "id": "c", "function": function}
    image = {"type": "image_url", "image_url": {"url": value}}
    for fields, path in (
        ({"unheard_of": value}, "unheard_of"),
        ({"tools": [call]}, "tools[0]"),
        ({"tool_choice": call}, "tool_choice"),
        ({"response_format": {"type": "text", "x": value}}, "response_format"),
        ({"messages": [{"role": "assistant", "tool_calls": [call]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "user", "content": [image]}]}, "messages[0].content[0]"),
    ):
        assert refusal(chat, **fields).param == path
    assert chat(unheard_of=nested(64)).extra == {"unheard_of": nested(64)}


fields = st.sampled_from(
    sorted(
        {field for field, _, _ in BAD_CHAT} | {"prompt", "echo", "extra", "logprobs", "session_id"}
    )
)


def is_request_or_4xx(decode: Callable[[bytes], Asked], body: bytes) -> None:
    try:
        request = decode(body)[0]
    except HeadraceError as error:
        refused = error
    else:
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request)
        assert again == request
        return
    assert 400 <= refused.meaning.http < 500
    assert refused.message.encode()


@settings(deadline=None)
@given(body=json_values)
def test_any_json_value_is_a_request_or_a_4xx(body: Any) -> None:
    encoded = msgspec.json.encode(body)
    is_request_or_4xx(decode_chat, encoded)
    is_request_or_4xx(decode_completion, encoded)


@pytest.mark.timeout(180)
@settings(deadline=None, max_examples=120)
@given(changes=st.dictionaries(fields, json_values, max_size=3))
def test_any_change_to_a_valid_body_is_a_request_or_a_4xx(changes: dict[str, Any]) -> None:
    is_request_or_4xx(decode_chat, msgspec.json.encode(CHAT | changes))
    is_request_or_4xx(decode_completion, msgspec.json.encode(COMPLETION | changes))


@pytest.mark.timeout(180)
@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_any_damage_to_the_bytes_is_a_request_or_a_4xx(data: st.DataObject) -> None:
    body = bytearray(
        json.dumps(CHAT | {"tools": [TOOL], "stop": ["é"]}, ensure_ascii=False).encode()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    is_request_or_4xx(decode_chat, bytes(body))
