"""All encoders: pure folds, resumed byte for byte, and nothing shown that is not in the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.event import Event, Token
from headrace.domain.request import Request, Sampling
from headrace.protocols.encoder import FRAMINGS, Encoder, Rest
from headrace.protocols.fold import Fold
from headrace.protocols.formats import ENCODERS
from headrace.protocols.infer import infer_answer
from headrace.protocols.native import native_event
from headrace.protocols.openai_chat import ChatCompletion, chat_completion
from headrace.protocols.openai_completions import text_completion

FORMS = [(wire, form) for wire in ENCODERS for form in FRAMINGS]
ANSWERS = [chat_completion, text_completion, infer_answer]


@pytest.fixture
def generation(kit: Any) -> Any:
    return kit.Generation(kit.chat_request(sampling=Sampling(n=2, logprobs=1)))


@pytest.fixture
def log(kit: Any) -> list[Event]:
    """Every kind of event, two choices, everything that a token can carry."""
    entry = kit.TokenLogprob(" a%d", -0.5, (32, 97), ((" a", -0.5, (32, 97)), ("b", -2.0, ())))
    call = kit.ToolCallDelta(0, "call_1", "weather", "")
    return [
        kit.progress(1, "prefill", done=3, total=9),
        kit.token(2, "Hel", index=0),
        kit.token(3, 'lo "%d" \\ 😀\n', index=0),
        kit.token(4, "thinking", index=1, reasoning=True),
        kit.prompt(5, "user", "and now?"),
        kit.token(6, " a%d", index=1, logprobs=(entry,)),
        kit.token(7, "", index=1, tool_calls=(call,)),
        kit.token(8, "", index=1, tool_calls=(kit.ToolCallDelta(0, None, None, '{"a":1}'),)),
        kit.token(9, "!", index=0, part=1),
        kit.finish(10, "stop", "tool_calls"),
    ]


def encoded(
    generation: Any,
    log: Sequence[Event],
    wire: str,
    form: Any = "sse",
    *,
    after: int = 0,
    size: int = 1,
    options: dict[str, Any] | None = None,
) -> bytes:
    if options is None:
        options = {"usage": True, "progress": True, "prompt": True}
    encoder: Encoder = ENCODERS[wire](generation, options, FRAMINGS[form])
    if after:
        encoder = Rest(encoder, after)
    batches = [log[start : start + size] for start in range(0, len(log), size)]
    return b"".join(encoder.encode(batch) for batch in batches)


def messages(stream: bytes) -> list[dict[str, str]]:
    """The messages of an SSE stream, each a dict of its fields."""
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def of_one_choice(log: list[Event], wire: str) -> list[Event]:
    """The log where a format shows nothing of a second choice."""
    if wire not in ("responses", "anthropic"):
        return log
    return [
        msgspec.structs.replace(event, index=0) if isinstance(event, Token) else event
        for event in log
    ]


def chunks(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(m["data"]) for m in messages(stream) if m["data"] != "[DONE]"]


@pytest.mark.parametrize(("wire", "form"), FORMS)
def test_how_events_are_batched_changes_no_byte(
    generation: Any, log: list[Event], wire: str, form: str
) -> None:
    one_by_one = encoded(generation, log, wire, form, size=1)

    assert one_by_one
    for size in range(2, len(log) + 1):
        assert encoded(generation, log, wire, form, size=size) == one_by_one


@pytest.mark.parametrize(("wire", "form"), FORMS)
@pytest.mark.parametrize("options", [{}, {"usage": True, "progress": True, "prompt": True}])
def test_a_resumed_stream_is_byte_for_byte_the_rest(
    generation: Any, log: list[Event], wire: str, form: str, options: dict[str, Any]
) -> None:
    whole = encoded(generation, log, wire, form, options=options)

    for cursor in range(len(log) + 1):
        seen = encoded(generation, log[:cursor], wire, form, options=options)
        rest = encoded(generation, log, wire, form, after=cursor, size=4, options=options)
        assert seen + rest == whole


@pytest.mark.parametrize("wire", ENCODERS)
def test_every_event_of_a_stream_can_be_named_by_its_last_message_only(
    generation: Any, log: list[Event], wire: str
) -> None:
    log = of_one_choice(log, wire)
    for event in log:
        shown = messages(encoded(generation, log[: event.seq], wire, after=event.seq - 1))
        assert [m.get("id") for m in shown[:-1]] == [None] * (len(shown) - 1)
        assert shown[-1]["id"] == str(event.seq)


@pytest.mark.parametrize(("wire", "form"), FORMS)
def test_one_event_less_in_the_log_is_a_gap_in_every_stream(
    generation: Any, log: list[Event], wire: str, form: str
) -> None:
    log = of_one_choice(log, wire)
    whole = encoded(generation, log, wire, form)

    for missing in log:
        with_gap = [event for event in log if event is not missing]
        shown = encoded(generation, with_gap, wire, form)
        assert shown != whole
        if isinstance(missing, Token) and missing.text:
            text = json.dumps(missing.text, ensure_ascii=False).encode()
            assert whole.count(text) > shown.count(text)


@pytest.mark.parametrize("answer", ANSWERS)
def test_one_token_less_in_the_log_is_a_gap_in_every_whole_answer(
    generation: Any, log: list[Event], answer: Any
) -> None:
    def rendered(events: list[Event]) -> bytes:
        fold = Fold()
        fold.events(events)
        return bytes(answer(generation, fold))

    for missing in log:
        if isinstance(missing, Token) and missing.text and not missing.reasoning:
            with_gap = [event for event in log if event is not missing]
            assert rendered(with_gap) != rendered(log)


def test_chat_chunks_say_role_once_a_choice_then_text_then_the_reason(
    kit: Any, generation: Any, log: list[Event]
) -> None:
    shown = chunks(encoded(generation, log, "openai-chat", options={}))

    assert {chunk["object"] for chunk in shown} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in shown} == {"chatcmpl-" + generation.id[4:]}
    assert {chunk["created"] for chunk in shown} == {1795346282}
    deltas: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in shown:
        (choice,) = chunk["choices"]
        deltas[choice["index"]].append((choice["delta"], choice["finish_reason"]))
    assert deltas[0] == [
        ({"role": "assistant", "content": None}, None),
        ({"content": "Hel"}, None),
        ({"content": 'lo "%d" \\ 😀\n'}, None),
        ({"content": "!"}, None),
        ({}, "stop"),
    ]
    opening = {"id": "call_1", "type": "function"}
    assert deltas[1] == [
        ({"role": "assistant", "content": None}, None),
        ({"reasoning_content": "thinking"}, None),
        ({"content": " a%d"}, None),
        (
            {
                "tool_calls": [
                    {"index": 0, "function": {"arguments": "", "name": "weather"}} | opening
                ]
            },
            None,
        ),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}, None),
        ({}, "tool_calls"),
    ]


def test_chat_logprobs_have_the_shape_of_openai(generation: Any, log: list[Event]) -> None:
    shown = chunks(encoded(generation, log, "openai-chat", options={}))

    found = [c["choices"][0]["logprobs"] for c in shown if c["choices"][0]["logprobs"]]
    assert found == [
        {
            "content": [
                {
                    "token": " a%d",
                    "logprob": -0.5,
                    "bytes": [32, 97],
                    "top_logprobs": [
                        {"token": " a", "logprob": -0.5, "bytes": [32, 97]},
                        {"token": "b", "logprob": -2.0, "bytes": None},
                    ],
                }
            ],
            "refusal": None,
        }
    ]


@pytest.mark.parametrize("wire", ["openai-chat", "openai-completions"])
def test_usage_comes_last_if_asked_for_and_is_null_before(
    generation: Any, log: list[Event], wire: str
) -> None:
    with_usage = chunks(encoded(generation, log, wire, options={"usage": True}))
    without = chunks(encoded(generation, log, wire, options={}))

    assert [chunk["usage"] for chunk in with_usage[:-1]] == [None] * (len(with_usage) - 1)
    assert with_usage[-1]["choices"] == []
    assert with_usage[-1]["usage"]["total_tokens"] == 8
    assert with_usage[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert not any("usage" in chunk for chunk in without)


@pytest.mark.parametrize("wire", ["openai-chat", "openai-completions"])
def test_openai_clients_see_progress_and_prompts_only_if_they_ask(
    generation: Any, log: list[Event], wire: str
) -> None:
    plain = messages(encoded(generation, log, wire, options={}))
    asked = messages(encoded(generation, log, wire, options={"progress": True, "prompt": True}))

    assert not any("event" in message for message in plain)
    extra = [message for message in asked if "event" in message]
    assert [message["event"] for message in extra] == ["progress", "prompt"]
    for message in extra:
        chunk = json.loads(message["data"])
        assert chunk["choices"] == []
        assert chunk["headrace"]["type"] == message["event"]
    assert [message for message in asked if "event" not in message] == plain


@pytest.mark.parametrize("wire", ["openai-chat", "openai-completions"])
def test_an_error_ends_an_openai_stream_without_done(kit: Any, generation: Any, wire: str) -> None:
    stream = encoded(generation, [kit.token(1, "a"), kit.error(2)], wire)

    last = messages(stream)[-1]
    assert last["id"] == "2"
    assert json.loads(last["data"]) == {
        "error": {
            "message": "The engine died.",
            "type": "api_error",
            "param": None,
            "code": "engine_failed",
        }
    }
    assert b"[DONE]" not in stream


@pytest.mark.parametrize("wire", ["openai-chat", "openai-completions"])
def test_done_carries_the_id_of_the_finish_event(
    generation: Any, log: list[Event], wire: str
) -> None:
    assert encoded(generation, log, wire).endswith(b"id: 10\ndata: [DONE]\n\n")


def test_a_choice_without_a_token_still_has_its_role_and_reason(kit: Any, generation: Any) -> None:
    shown = chunks(encoded(generation, [kit.finish(1, "length")], "openai-chat", options={}))

    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in shown] == [
        (0, None),
        (0, "length"),
        (1, None),
        (1, "length"),
    ]


def test_native_events_are_as_the_design_words_them(
    kit: Any, generation: Any, log: list[Event]
) -> None:
    shown = messages(encoded(generation, log, "native", options={}))

    assert [m["event"] for m in shown] == [json.loads(m["data"])["type"] for m in shown]
    events = [json.loads(message["data"]) for message in shown]
    assert [event["seq"] for event in events] == list(range(1, 11))
    assert {event["generation"] for event in events} == {generation.id}
    assert events[0] == {
        "seq": 1,
        "type": "progress",
        "timestamp": 1795346283.013,
        "generation": generation.id,
        "payload": {"phase": "prefill", "done": 3, "total": 9},
    }
    payloads = [event["payload"] for event in events]
    assert payloads[1] == {"text": "Hel", "index": 0}
    assert payloads[3] == {"text": "thinking", "index": 1, "reasoning": True}
    assert payloads[4] == {"role": "user", "content": "and now?"}
    assert payloads[5]["logprobs"][0]["token"] == " a%d"
    assert payloads[6]["tool_calls"] == [
        {"index": 0, "id": "call_1", "name": "weather", "arguments": ""}
    ]
    assert payloads[8] == {"text": "!", "index": 0, "part": 1}
    assert payloads[9]["reason"] == "stop"
    assert payloads[9]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "cached_tokens": 2,
    }


@pytest.mark.parametrize(("retry_after_s", "more"), [(None, {}), (6.5, {"retry_after_s": 6.5})])
def test_a_native_error_says_when_to_come_again_where_that_is_known(
    kit: Any, generation: Any, retry_after_s: float | None, more: dict[str, float]
) -> None:
    failed = native_event(kit.error(2, "queue_full", "Shed.", retry_after_s), generation.id)

    said = {"code": "queue_full", "message": "Shed.", "retryable": True}
    assert json.loads(failed)["payload"] == said | more


@pytest.mark.parametrize("form", FRAMINGS)
def test_a_plain_token_takes_a_short_way_to_the_same_bytes(
    kit: Any, generation: Any, form: Any
) -> None:
    plain = kit.token(7, 'lo "%d" 😀', index=1)
    shown = encoded(generation, [plain], "native", form)

    expected = native_event(plain, generation.id)
    assert shown == FRAMINGS[form].message(7, expected, b"token")


def test_native_streams_leave_out_what_the_client_left_out(
    generation: Any, log: list[Event]
) -> None:
    shown = messages(
        encoded(generation, log, "native", options={"progress": False, "prompt": True})
    )

    assert [m["id"] for m in shown] == [str(event.seq) for event in log if event.seq != 1]


@pytest.mark.parametrize("wire", ENCODERS)
def test_lines_are_the_data_of_the_messages(generation: Any, log: list[Event], wire: str) -> None:
    lines = encoded(generation, log, wire, "ndjson").decode().splitlines()
    data = [m["data"] for m in messages(encoded(generation, log, wire)) if m["data"] != "[DONE]"]

    assert lines == data


def test_text_logprobs_are_lists_and_offsets_go_on_over_chunks(kit: Any) -> None:
    request = Request(
        model="scripted", kind="completion", prompts=("One",), sampling=Sampling(logprobs=1)
    )
    generation = kit.Generation(request)
    log = [
        kit.token(1, "One", logprobs=(kit.TokenLogprob("One", None),)),
        kit.token(2, " two", logprobs=(kit.TokenLogprob(" two", -1.0, (), ((" two", -1.0, ()),)),)),
        kit.finish(3, "length"),
    ]
    fold = Fold()
    fold.events(log)
    whole = json.loads(text_completion(generation, fold))["choices"][0]["logprobs"]
    parts = chunks(encoded(generation, log, "openai-completions", options={}))

    assert whole == {
        "tokens": ["One", " two"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {" two": -1.0}],
        "text_offset": [0, 3],
    }
    assert [c["choices"][0]["logprobs"]["text_offset"] for c in parts[:-1]] == [[0], [3]]


def test_a_whole_chat_answer_has_the_nullable_fields_and_the_tool_calls(
    generation: Any, log: list[Event]
) -> None:
    fold = Fold()
    fold.events(log)
    first, second = json.loads(chat_completion(generation, fold))["choices"]

    assert first["message"] == {
        "role": "assistant",
        "content": 'Hello "%d" \\ 😀\n!',
        "refusal": None,
        "annotations": [],
    }
    assert first["finish_reason"] == "stop"
    assert second["finish_reason"] == "tool_calls"
    assert second["message"]["reasoning_content"] == "thinking"
    assert second["message"]["tool_calls"] == [
        {
            "id": "call_1",
            "function": {"name": "weather", "arguments": '{"a":1}'},
            "type": "function",
        }
    ]
    assert len(second["logprobs"]["content"]) == 1


@settings(deadline=None)
@given(
    texts=st.lists(st.tuples(st.text(), st.integers(0, 2), st.booleans()), max_size=6),
    reasons=st.lists(st.sampled_from(["stop", "length", "tool_calls"]), min_size=1, max_size=3),
    logprobs=st.sampled_from([None, 0]),
)
def test_a_whole_chat_answer_is_its_struct_byte_for_byte(
    kit: Any, texts: list[tuple[str, int, bool]], reasons: list[str], logprobs: int | None
) -> None:
    generation = kit.Generation(kit.chat_request(sampling=Sampling(n=3, logprobs=logprobs)))
    fold = Fold()
    for seq, (text, index, reasoning) in enumerate(texts, 1):
        fold.events([kit.token(seq, text, index=index, reasoning=reasoning)])
    fold.events([kit.finish(len(texts) + 1, *reasons, usage=kit.Usage(7, 2**40, 3))])

    answer = chat_completion(generation, fold)

    decoded = msgspec.json.decode(answer, type=ChatCompletion)
    assert msgspec.json.encode(decoded) == answer
    said = "".join(text for text, index, reasoning in texts if index == 1 and not reasoning)
    assert decoded.choices[1].message.content == said
    assert decoded.choices[1].finish_reason == (reasons[1] if len(reasons) > 1 else reasons[0])
    assert decoded.usage.total_tokens == 7 + 2**40


def test_content_is_null_when_there_are_only_tool_calls(kit: Any) -> None:
    fold = Fold()
    fold.events(
        [kit.token(1, "", tool_calls=(kit.ToolCallDelta(0, "c", "f", "{}"),)), kit.finish(2)]
    )

    answer = json.loads(chat_completion(kit.Generation(kit.chat_request()), fold))

    assert answer["choices"][0]["message"]["content"] is None


@settings(deadline=None)
@given(texts=st.lists(st.text(), max_size=8), wire=st.sampled_from(sorted(ENCODERS)))
def test_any_text_arrives_as_it_was(kit: Any, texts: list[str], wire: str) -> None:
    generation = kit.Generation(kit.chat_request())
    log = [kit.token(seq, text) for seq, text in enumerate(texts, 1)]
    stream = encoded(generation, [*log, kit.finish(len(log) + 1)], wire, options={})

    def text_of(message: dict[str, Any]) -> str:
        if wire == "native":
            return str(message["payload"].get("text", ""))
        if wire == "responses":
            return str(message.get("delta", ""))
        if wire == "anthropic":
            return str(message.get("delta", {}).get("text", ""))
        choice = message["choices"][0]
        return str(
            choice.get("text", "") if "text" in choice else choice["delta"].get("content") or ""
        )

    assert "".join(text_of(message) for message in chunks(stream)) == "".join(texts)
