from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from headrace.domain.delta import Delta, Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import TokenLogprob, ToolCallDelta, Usage
from headrace.domain.request import ImagePart, Message, Request, Sampling, TextPart
from headrace.domain.tokens import Tokens
from headrace.engines.engine import Work
from headrace.engines.limits import Limits
from headrace.engines.openai import OpenAIEngine, OpenAIOptions

MODELS = b'{"data":[{"id":"m","created":1700000000,"max_model_len":4096}]}'


def http(body, status=200, kind=b"application/json", extra=b""):
    return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        *(status, kind, extra, len(body), body),
    )


def chunk(text=None, index=0, reason=None, **more):
    delta = {"content": text} if text is not None else {}
    return {"choices": [{"index": index, "delta": delta | more, "finish_reason": reason}]}


def events(*said, done=True):
    lines = [b"data: %b\n\n" % json.dumps(one).encode() for one in said]
    return b"".join([*lines, b"data: [DONE]\n\n" if done else b""])


class Fake:
    """Answers ``/models`` and ``paths`` itself and everything else with ``answers`` in turn, the last for ever."""

    def __init__(self, *answers, models=None, paths=None):
        self.paths = paths or {}
        self.answers = list(answers)
        self.models = models or [http(MODELS)]
        self.asked = []
        self.heads = []

    async def __call__(self, reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.heads.append(head)
            if b"/models " in head:
                writer.write(self.models[0])
                self.models = self.models[1:] or self.models
                continue
            if (path := head.split(b" ")[1]) in self.paths:
                writer.write(self.paths[path])
                continue
            self.asked.append(json.loads(body))
            answer = self.answers[0]
            self.answers = self.answers[1:] or self.answers
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(reader, writer)
                return


def stream(*said, done=True):
    return http(events(*said, done=done), kind=b"text/event-stream")


@contextlib.asynccontextmanager
async def engine_at(server, **options):
    engine = OpenAIEngine(OpenAIOptions(name="m", url=server.url, **options))
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


def chat(**options):
    sampling = Sampling(**options.pop("sampling", {}))
    return Request("m", "chat", (Message("user", "hi"),), sampling=sampling, **options)


def complete(*prompts, **options):
    sampling = Sampling(**options.pop("sampling", {}))
    return Request("m", "completion", prompts=prompts, sampling=sampling, **options)


@pytest.fixture
def result(upstream, seen, run):
    """Run one work against a fake upstream; return what the sink saw, the end and the bodies asked."""

    def go(fake, work, **options):
        kept = []

        async def main():
            async with upstream(fake) as server, engine_at(server, **options) as engine:
                sink = seen()
                engine.stream_infer(work, sink)
                kept.extend([sink, await sink.over, fake.asked])

        run(main())
        return kept

    return go


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}


@pytest.mark.parametrize(
    ("first", "prefills"),
    [
        ({"prompt_token_ids": [7, 8, 9]}, [(3, 3)] * 2),  # vLLM, once for each choice
        ({"prompt_progress": {"total": 9, "processed": 8}}, [(8, 9)] * 2),  # llama.cpp
        ({"usage": {"prompt_tokens": 4, "completion_tokens": 0}}, [(4, 4)] * 2),
        ({"prompt_token_ids": None}, []),
        ({}, []),
    ],
)
def test_the_length_of_the_prompt_is_told_before_any_output(result, first, prefills):
    beginning = chunk("", role="assistant") | first
    said = (beginning, beginning, chunk("a"), chunk("b"), chunk(reason="stop"))
    usage = {"choices": [], "usage": USAGE}
    for prefixes in ((), (Prefix("so", (), 1),)):
        work = Work(chat(), prefixes)
        sink, outcome, _ = result(Fake(stream(*said, usage)), work, dialect="vllm")
        assert (sink.prefills, outcome.usage) == (prefills, Usage(5, 2, 3))
    sink, _, _ = result(Fake(stream(chunk("a"), beginning, chunk(reason="stop"))), Work(chat()))
    assert sink.prefills == []


def test_a_streamed_answer_becomes_deltas_reasons_and_usage(result):
    said = stream(
        chunk("", role="assistant"), chunk("Hel"), chunk("lo"), chunk(reason="stop"),
        {"choices": [], "usage": USAGE},
    )  # fmt: skip
    sink, outcome, asked = result(Fake(said), Work(chat()))
    assert sink.batches == [[Delta("Hel"), Delta("lo")]]
    assert outcome.reasons == ("stop",)
    assert outcome.usage == Usage(5, 2, 3)
    assert asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_without_usage_the_pieces_are_counted(result):
    _, outcome, asked = result(
        Fake(stream(chunk("a"), chunk("b"), chunk(reason="length"))),
        Work(chat()),
        stream_usage=False,
    )
    assert outcome.usage == Usage(0, 2, 0)
    assert outcome.reasons == ("length",)
    assert "stream_options" not in asked[0]


def test_a_whole_answer_is_asked_where_nobody_reads_along(result):
    answer = {
        "choices": [
            {"index": 0, "message": {"content": "one"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": "two"}, "finish_reason": "length"},
        ],
        "usage": USAGE,
    }
    sink, outcome, asked = result(
        Fake(http(json.dumps(answer).encode())), Work(chat(sampling={"n": 2}), live=False)
    )
    assert sink.batches == [[Delta("one", 0), Delta("two", 1)]]
    assert outcome.reasons == ("stop", "length")
    assert "stream" not in asked[0]
    assert asked[0]["n"] == 2


def test_reasoning_tool_calls_and_logprobs_arrive(result):
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a":1}'}}
    probable = chunk("x")
    top = [{"token": "x", "logprob": -0.5, "bytes": [120]}, {"token": "é", "logprob": -2}]
    probable["choices"][0]["logprobs"] = {
        "content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": top}]
    }
    said = stream(
        chunk(reasoning_content="hm"), chunk(reasoning="mm"), probable,
        chunk(tool_calls=[call]), chunk(tool_calls=[rest]), chunk(reason="tool_calls"),
    )  # fmt: skip
    sink, outcome, _ = result(Fake(said), Work(chat()))
    alternatives = (("x", -0.5, (120,)), ("é", -2.0, (195, 169)))
    assert sink.all == [
        Delta("hm", reasoning=True),
        Delta("mm", reasoning=True),
        Delta("x", logprobs=(TokenLogprob("x", -0.5, (120,), alternatives),)),
        Delta("", tool_calls=(ToolCallDelta(0, "c1", "f", ""),)),
        Delta("", tool_calls=(ToolCallDelta(0, None, None, '{"a":1}'),)),
    ]
    assert outcome.reasons == ("tool_calls",)


def test_completions_have_their_own_form(result):
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {"b": -1.5}],
        "text_offset": [0, 1],
    }
    one = {"index": 1, "text": "ab", "logprobs": logprobs, "finish_reason": None}
    ends = [{"index": at, "text": "", "finish_reason": "stop"} for at in (0, 1)]
    sink, outcome, asked = result(
        Fake(stream({"choices": [one]}, {"choices": ends})),
        Work(complete("p", "q", echo=True, sampling={"logprobs": 1})),
    )
    top = (("b", -1.5, (98,)),)
    probable = (TokenLogprob("a", None, (97,)), TokenLogprob("b", -1.5, (98,), top))
    assert sink.all == [Delta("ab", 1, logprobs=probable)]
    assert outcome.reasons == ("stop", "stop")
    assert asked[0]["prompt"] == ["p", "q"]
    assert (asked[0]["echo"], asked[0]["logprobs"]) == (True, 1)


def test_every_option_is_sent_under_the_upstreams_name(result):
    sampling = {
        "max_tokens": 9, "temperature": 0.0, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "stop": ("x",),
        "seed": 0, "presence_penalty": 1.0, "frequency_penalty": 2.0, "repeat_penalty": 1.1,
        "logit_bias": {"5": -1.0}, "logprobs": 2, "ignore_eos": True,
    }  # fmt: skip
    request = chat(sampling=sampling, user="u", extra={"min_tokens": 1})
    _, _, asked = result(
        Fake(stream(chunk(reason="stop"))),
        Work(request),
        dialect="vllm",
        max_tokens_field="max_completion_tokens",
        extra={"cache_salt": "s"},
        model="org/m",
    )
    body = asked[0]
    assert body.pop("messages")
    assert body == {
        "model": "org/m", "stream": True, "stream_options": {"include_usage": True},
        "return_token_ids": True, "max_completion_tokens": 9, "temperature": 0.0, "top_p": 0.5,
        "top_k": 4, "min_p": 0.1, "stop": ["x"], "seed": 0, "presence_penalty": 1.0,
        "frequency_penalty": 2.0, "repetition_penalty": 1.1, "logit_bias": {"5": -1.0},
        "logprobs": True, "top_logprobs": 2, "ignore_eos": True, "user": "u", "min_tokens": 1,
        "cache_salt": "s",
    }  # fmt: skip


def test_messages_with_parts_are_openai_messages(result):
    parts = [TextPart("what?"), ImagePart({"url": "data:image/png;base64,AA"})]
    request = Request("m", "chat", (Message("system", "s"), Message("user", parts)))
    _, _, asked = result(Fake(stream(chunk(reason="stop"))), Work(request))
    assert asked[0]["messages"] == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            ],
        },
    ]


def test_the_key_and_the_path_of_the_url_are_used(upstream, run, seen):
    async def main():
        fake = Fake(stream(chunk(reason="stop")))
        async with upstream(fake) as server:
            server.url += "/openai/v1"
            async with engine_at(server, api_key="sk-1") as engine:
                sink = seen()
                engine.stream_infer(Work(chat()), sink)
                await sink.over
        assert fake.heads[0].startswith(b"GET /openai/v1/models ")
        assert fake.heads[1].startswith(b"POST /openai/v1/chat/completions ")
        assert all(b"\r\nauthorization: Bearer sk-1\r\n" in head for head in fake.heads)

    run(main())


REFUSED = {
    "context (llama.cpp)": (
        400, {"error": {"type": "exceed_context_size_error", "message": "9 > 8", "code": 400}},
        Code.CONTEXT_LENGTH,
    ),
    "context (OpenAI)": (
        400, {"error": {"code": "context_length_exceeded", "message": "too long"}},
        Code.CONTEXT_LENGTH,
    ),
    "context (vLLM)": (
        400, {"object": "error", "message": "This model's maximum context length is 8", "code": 400},
        Code.CONTEXT_LENGTH,
    ),
    "bad value": (
        400, {"error": {"message": "top_p too big", "param": "top_p"}}, Code.INVALID_REQUEST,
    ),
    "FastAPI": (422, {"detail": [{"msg": "field required"}]}, Code.UNPROCESSABLE),
    "key": (401, {"error": {"message": "bad key"}}, Code.ENGINE_UNAVAILABLE),
    "model": (404, {"error": {"message": "no model"}}, Code.MODEL_NOT_FOUND),
    "rate": (429, {"error": {"message": "slow down"}}, Code.RATE_LIMITED),
    "loading": (503, {"error": {"message": "Loading model"}}, Code.ENGINE_UNAVAILABLE),
    "SGLang": (503, {"message": "The request queue is full."}, Code.QUEUE_FULL),
    "overloaded": (529, {"error": {"message": "Overloaded"}}, Code.QUEUE_FULL),
    "crash": (500, {"error": "boom"}, Code.ENGINE_FAILED),
    "gateway": (502, {}, Code.ENGINE_FAILED),
    "timeout": (504, {}, Code.ENGINE_TIMEOUT),
    "other": (418, {"error": {"message": "teapot"}}, Code.INVALID_REQUEST),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "code"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("live", [True, False])
def test_a_refusal_keeps_the_upstreams_words(result, status, body, code, live):
    answer = http(json.dumps(body).encode(), status, extra=b"Retry-After: 7\r\n")
    _, error, _ = result(Fake(answer), Work(chat(), live=live))
    assert error.code is code
    assert error.retry_after_s == 7.0
    said = body.get("error", body)
    said = said if isinstance(said, str) else str(said.get("message", ""))
    assert said in error.message
    assert error.param == ("top_p" if "top_p" in said else None)


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[1]", b"\xff{"])
def test_a_refusal_without_sense_still_names_the_status_or_its_words(result, body):
    _, error, _ = result(Fake(http(body, 502)), Work(chat()))
    assert error.code is Code.ENGINE_FAILED
    assert error.message


BROKEN = {
    "error event": (events(chunk("a"), {"error": {"message": "CUDA", "code": 500}}), "CUDA"),
    "error text": (events(chunk("a"), {"error": "CUDA"}), "CUDA"),
    "no finish": (events(chunk("a"), done=False), "without a reason"),
    "no json": (b"data: {nope\n\n", "not one of its protocol"),
    "wrong types": (b'data: {"choices":[{"delta":{"content":5}}]}\n\n', "not one of its protocol"),
    "bad utf-8": (b'data: {"choices":[{"text":"\xff"}]}\n\n', "not one of its protocol"),
    "gave up": (events(chunk("a"), chunk(reason="abort")), "abort"),
}


@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_keeps_its_tokens_and_fails_retryable(result, body, words):
    sink, error, _ = result(Fake(http(body)), Work(chat()))
    assert error.code is Code.ENGINE_FAILED
    assert error.meaning.retryable
    assert words in error.message
    assert sink.text() == ("a" if b'"a"' in body else "")


DEEP = b"[" * 3000 + b"]" * 3000


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        http(b'{"x":' + DEEP + b"}"),
        http(b'{"error":{"message":' + DEEP + b"}}", 500),
        http(b'data: {"x":' + DEEP + b"}\n\n"),
    ],
    ids=["unknown field", "refusal", "event"],
)
def test_an_answer_nested_without_end_ends_the_run(result, answer, live):
    _, error, _ = result(Fake(answer), Work(chat(), live=live))
    assert error.code is Code.ENGINE_FAILED


def test_an_error_event_may_say_that_it_is_the_clients(result):
    said = {"error": {"message": "too long", "type": "context_length_exceeded", "code": 400}}
    _, error, _ = result(Fake(stream(said)), Work(chat()))
    assert error.code is Code.CONTEXT_LENGTH


def test_a_missing_done_is_forgiven_after_a_finish_reason(result):
    said = stream(chunk("a"), chunk(reason="stop"), done=False)
    sink, outcome, _ = result(Fake(said), Work(chat()))
    assert (sink.text(), outcome.reasons) == ("a", ("stop",))


def test_the_end_is_told_at_done_without_waiting_for_the_answers_end(upstream, run, seen):
    async def main():
        async def lingering(reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n")
            writer.write(events(chunk("a"), chunk(reason="stop")))
            await writer.drain()
            await asyncio.Event().wait()

        async with upstream(Fake(lingering)) as server, engine_at(server) as engine:
            sink = seen()
            engine.stream_infer(Work(chat()), sink)
            assert (await sink.over).reasons == ("stop",)

    run(main())


@pytest.mark.parametrize("live", [True, False])
def test_the_next_run_may_begin_on_the_connection_of_the_one_that_ends(upstream, run, seen, live):
    class Following(seen):
        def finished(self, outcome, deltas=()):
            super().finished(outcome, deltas)
            engine.stream_infer(Work(chat(), live=live), following)

    async def main():
        nonlocal engine, following
        whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
        said = (
            stream(chunk("a"), chunk(reason="stop")) if live else http(json.dumps(whole).encode())
        )
        async with upstream(Fake(said)) as server, engine_at(server) as engine:
            first, following = Following(), seen()
            engine.stream_infer(Work(chat(), live=live), first)
            assert (await following.over).reasons == ("stop",)
            assert first.text() == following.text() == "a"
            assert server.connections == 1

    engine = following = None
    run(main())


def test_a_run_that_ended_leaves_the_connection_to_the_end_of_its_answer(upstream, run, seen):
    async def main():
        async def slowly(reader, writer):
            said = stream(chunk("a"), chunk(reason="stop"))
            writer.write(said.replace(b"content-length: ", b"content-length: 1"))  # by 100 or more
            await told.wait()
            length = int(said.split(b"content-length: ")[1].split(b"\r\n")[0])
            writer.write(b" " * (int(f"1{length}") - length))
            await fake(reader, writer)

        told = asyncio.Event()
        fake = Fake(slowly, http(b"{}", 500))
        async with upstream(fake) as server, engine_at(server) as engine:
            sink, after = seen(), seen()
            ended = engine.stream_infer(Work(chat()), sink)
            assert (await sink.over).reasons == ("stop",)
            ended.cancel()
            told.set()
            await eventually_idle(engine)
            engine.stream_infer(Work(chat()), after)
            assert (await after.over).code is Code.ENGINE_FAILED
            assert server.connections == 1

    async def eventually_idle(engine):
        while not engine._pool.idle_connections:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    run(main())


def test_cancel_closes_the_connection_and_nothing_more_is_told(upstream, run, seen):
    async def main():
        async def endless(reader, writer):
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + events(chunk("a"))[:-14]
            )
            assert await reader.read() == b""
            closed.set()

        closed = asyncio.Event()
        async with upstream(Fake(endless)) as server, engine_at(server) as engine:
            sink = seen()
            engine_run = engine.stream_infer(Work(chat()), sink)
            await sink.first.wait()
            engine_run.cancel()
            engine_run.cancel()
            await closed.wait()
            assert not sink.over.done()
            assert engine.health()[0] == "ready"

    run(main())


BROKEN_LATER = events(chunk("a"), {"error": {"message": "CUDA"}})


def test_a_sink_that_cancels_is_not_told_how_the_same_read_broke(upstream, run, seen):
    class Cancelling(seen):
        def deltas(self, deltas):
            super().deltas(deltas)
            engine_run.cancel()

    async def main():
        nonlocal engine_run
        async with upstream(Fake(http(BROKEN_LATER))) as server, engine_at(server) as engine:
            sink = Cancelling()
            engine_run = engine.stream_infer(Work(chat()), sink)
            await sink.first.wait()
            assert sink.text() == "a"
            assert not sink.over.done()
            assert engine.health()[0] == "ready"

    engine_run = None
    run(main())


def test_a_choice_that_was_not_asked_for_gives_no_reason(result):
    ends = [{"index": at, "delta": {}, "finish_reason": "length"} for at in (0, 7)]
    _, outcome, _ = result(Fake(stream({"choices": ends})), Work(chat()))
    assert outcome.reasons == ("length",)


def test_options_that_an_upstream_lacks_are_refused_by_name():
    engine = OpenAIEngine(OpenAIOptions(name="m", url="http://127.0.0.1:1"))
    for name, value in {
        "top_k": 1,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "ignore_eos": True,
    }.items():
        with pytest.raises(HeadraceError) as caught:
            engine.check(chat(sampling={name: value}))
        assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, name)
    with pytest.raises(HeadraceError) as caught:
        engine.check(chat(extra={"mirostat": 1}))
    assert caught.value.param == "mirostat"
    with pytest.raises(HeadraceError, match="not both"):
        engine.check(complete("a", (1, 2)))
    engine.check(chat(extra={"reasoning_effort": "low"}))


def test_a_chat_goes_on_from_its_beginning_where_the_dialect_can(result):
    fakes = Fake(stream(chunk("lo"), chunk(reason="stop"), {"choices": [], "usage": USAGE}))
    work = Work(chat(sampling={"max_tokens": 10, "n": 2}), (Prefix("Hel", (1, 2)), Prefix("", ())))
    sink, outcome, asked = result(fakes, work, dialect="vllm")
    assert (sink.text(0), sink.text(1)) == ("lo", "lo")
    assert outcome.usage == Usage(10, 4, 6)
    by_first = sorted(asked, key=lambda body: body["max_tokens"])
    assert by_first[0]["messages"][-1] == {"role": "assistant", "content": "Hel"}
    assert by_first[0]["continue_final_message"] is True
    assert by_first[0]["add_generation_prompt"] is False
    assert [body["max_tokens"] for body in by_first] == [8, 10]
    assert all("n" not in body for body in asked)
    assert by_first[1]["messages"] == [{"role": "user", "content": "hi"}]


BEGUN = Request("m", "chat", (Message("user", "hi"), Message("assistant", "Once")), goes_on=True)


@pytest.mark.parametrize(("dialect", "told"), [("vllm", True), ("sglang", True), ("llama", None)])
def test_an_answer_goes_on_from_the_assistants_last_message(result, dialect, told):
    fake = Fake(stream(chunk(" upon"), chunk(reason="stop")))
    sink, _, (asked,) = result(fake, Work(BEGUN), dialect=dialect)
    assert sink.text() == " upon"
    assert asked["messages"][1:] == [{"role": "assistant", "content": "Once"}]
    assert asked.get("continue_final_message") is told
    assert asked.get("add_generation_prompt") is (False if told else None)


def test_an_answer_that_went_on_from_a_message_goes_on_from_both_after_a_break(result):
    fake = Fake(stream(chunk(" a"), chunk(reason="stop")))
    work = Work(BEGUN, (Prefix(" upon", (1,)),))
    _, _, (asked,) = result(fake, work, dialect="vllm")
    assert asked["messages"][1:] == [{"role": "assistant", "content": "Once upon"}]
    assert asked["continue_final_message"] is True


def test_an_upstream_that_cannot_go_on_from_a_message_refuses_it_by_name():
    engine = OpenAIEngine(OpenAIOptions(name="m", url="http://h/v1"))
    with pytest.raises(HeadraceError) as caught:
        engine.check(BEGUN)
    assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, "messages")
    with pytest.raises(HeadraceError) as caught:
        engine.check_prompt(BEGUN)
    assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, "messages")


def test_a_choice_without_tokens_left_is_not_asked_again(result):
    work = Work(chat(sampling={"max_tokens": 3}), (Prefix("abc", (), 3),))
    sink, outcome, asked = result(Fake(b""), work, dialect="vllm")
    assert (outcome.reasons, sink.all, asked) == (("length",), [], [])


def test_a_completion_goes_on_after_its_text(result):
    ended = {"choices": [{"text": "c", "finish_reason": "stop"}]}
    work = Work(complete("a", echo=True), (Prefix("ab", ()),))
    sink, _, asked = result(Fake(stream(ended)), work)
    assert (sink.text(), asked[0]["prompt"]) == ("c", "ab")
    assert "echo" not in asked[0]
    work = Work(complete((1, 2)), (Prefix("x", (3,)),))
    _, _, asked = result(Fake(stream(ended)), work)
    assert asked[0]["prompt"] == [1, 2, 3]


TURNS = (
    Turn(Prefix("Hel", ()), Message("user", "louder")),
    Turn(Prefix("", ()), Message("system", "please")),
)


def test_a_prompt_in_mid_stream_is_told_to_any_upstream(result):
    work = Work(chat(sampling={"max_tokens": 5}), (Prefix("", ()),), turns=TURNS)
    sink, _, asked = result(Fake(stream(chunk("HELLO"), chunk(reason="stop"))), work)
    assert sink.text() == "HELLO"
    assert asked[0]["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hel"},
        {"role": "user", "content": "louder"},
        {"role": "system", "content": "please"},
    ]
    assert asked[0]["max_tokens"] == 5


def test_behind_a_prompt_it_goes_on_from_its_beginning_where_the_dialect_can(result):
    work = Work(chat(), (Prefix("HE", ()),), turns=TURNS)
    fake = Fake(stream(chunk("LLO"), chunk(reason="stop")))
    _, _, asked = result(fake, work, dialect="vllm")
    assert asked[0]["messages"][-2:] == [
        {"role": "system", "content": "please"},
        {"role": "assistant", "content": "HE"},
    ]
    _, error, asked = result(Fake(b""), work)
    assert (error.code, asked) == (Code.NOT_CONTINUABLE, [])


def test_a_completion_has_a_prompt_in_its_text(result):
    ended = {"choices": [{"text": "!", "finish_reason": "stop"}]}
    _, _, asked = result(Fake(stream(ended)), Work(complete("a "), (Prefix("", ()),), turns=TURNS))
    assert asked[0]["prompt"] == "a Hellouderplease"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (complete((1, 2)), "prompt"),
    ],
)
def test_what_takes_no_prompt_says_what_of_it(request_, param):
    engine = OpenAIEngine(OpenAIOptions(name="m", url="http://127.0.0.1:1"))
    with pytest.raises(HeadraceError) as error:
        engine.check_prompt(request_)
    assert (error.value.code, error.value.param) == (Code.UNSUPPORTED, param)


NOT_CONTINUABLE = {
    "no prefill": (chat(), "openai"),
    "tools": (chat(tools=[{"type": "function", "function": {"name": "f"}}]), "vllm"),
    "schema": (chat(response_format={"type": "json_object"}), "vllm"),
    "ids unknown": (complete((1, 2)), "openai"),
}


@pytest.mark.parametrize(
    ("request_", "dialect"), NOT_CONTINUABLE.values(), ids=NOT_CONTINUABLE.keys()
)
def test_what_cannot_go_on_says_so(result, request_, dialect):
    _, error, asked = result(Fake(b""), Work(request_, (Prefix("x", ()),)), dialect=dialect)
    assert error.code is Code.NOT_CONTINUABLE
    assert asked == []


def test_token_ids_are_kept_where_the_upstream_says_them(result):
    said = chunk("ab")
    said["choices"][0]["token_ids"] = [7, 8]
    sink, _, _ = result(Fake(stream(said, chunk(reason="stop"))), Work(chat()), dialect="vllm")
    assert sink.all == [Delta("ab", 0, (7, 8))]


def test_facts_come_from_the_upstream_and_settings_win(upstream, run):
    async def main():
        async with upstream(Fake(b"")) as server:
            async with engine_at(server, dialect="vllm", slots=3) as engine:
                info = engine.info()
                assert (info.context, info.max_tokens, info.slots) == (4096, 4096, 3)
                assert (info.created_at, info.continues) == (1700000000.0, True)
            async with engine_at(server, context=100, max_tokens=10) as engine:
                info = engine.info()
                assert (info.context, info.max_tokens, info.continues) == (100, 10, False)

    run(main())


@pytest.mark.parametrize(
    ("props", "slots"),
    [
        (http(b'{"total_slots":3,"default_generation_settings":{}}'), 3),
        (http(b'{"total_slots":"many"}'), 9),
        (http(b"[]"), 9),
        (http(b'{"error":{"message":"no such path"}}', 404), 9),
    ],
)
def test_the_slots_that_an_upstream_says_count_where_they_are_asked_for(
    upstream, run, props, slots
):
    async def main():
        fake = Fake(b"", paths={b"/props": props})
        async with upstream(fake) as server:
            asked = {"dialect": "llama", "slots": 9, "api_key": "k"}
            async with engine_at(server, **asked) as engine:
                assert engine.info().slots == 9
            assert len(fake.heads) == 1
            async with engine_at(server, asks_slots=True, **asked) as engine:
                assert engine.info().slots == slots
            assert fake.heads[2].startswith(b"GET /props HTTP")
            assert b"authorization: Bearer k" in fake.heads[2]
            async with engine_at(server, asks_slots=True, slots=9) as engine:
                assert engine.info().slots == 9  # no such path in this dialect
            assert len(fake.heads) == 4

    run(main())


def test_it_waits_until_the_upstream_is_ready(upstream, run):
    async def main():
        loading = http(b'{"error":{"message":"Loading model","code":503}}', 503)
        fake = Fake(b"", models=[loading, http(MODELS)])
        async with upstream(fake) as server:
            engine = OpenAIEngine(OpenAIOptions(name="m", url=server.url))
            with pytest.raises(HeadraceError) as caught:
                engine.info()
            assert caught.value.code is Code.MODEL_LOADING
            assert engine.health()[0] == "starting"
            await engine.load()
            assert engine.health()[0] == "ready"
            assert len(fake.heads) == 2
            await engine.close()
            await engine.close()
            assert engine.health()[0] == "closed"

    run(main())


@pytest.mark.parametrize(
    ("answer", "words"), [(http(b'{"error":{"message":"bad key"}}', 401), "bad key"), (b"", "")]
)
def test_loading_an_upstream_that_cannot_serve_fails_with_the_reason(upstream, run, answer, words):
    async def main():
        async with upstream(Fake(b"", models=[answer])) as server:
            engine = OpenAIEngine(OpenAIOptions(name="m", url=server.url, load_timeout_s=0.2))
            with pytest.raises(HeadraceError) as caught:
                await engine.load()
            assert caught.value.code is Code.ENGINE_UNAVAILABLE
            assert words in caught.value.message
            assert engine.health()[0] == "failed"

    run(main())


def test_an_upstream_that_vanishes_is_unreachable_until_it_is_back(upstream, run, seen, eventually):
    async def main():
        fake = Fake(stream(chunk("a"), chunk(reason="stop")))
        async with upstream(fake) as server, engine_at(server) as engine:
            port = int(server.url.rpartition(":")[2])
            server.stop()
            await server.close()
            sink = seen()
            engine.stream_infer(Work(chat()), sink)
            assert (await sink.over).meaning.retryable
            sink = seen()
            engine.stream_infer(Work(chat()), sink)
            assert (await sink.over).code is Code.ENGINE_UNAVAILABLE
            assert engine.health()[0] == "unreachable"
            back = await asyncio.start_server(server.answer, "127.0.0.1", port)
            await eventually(lambda: engine.health()[0] == "ready")
            sink = seen()
            engine.stream_infer(Work(chat()), sink)
            assert (await sink.over).reasons == ("stop",)
            back.close()
            await server.close()

    run(main())


def test_whole_runs_are_collected_from_streamed_ones_in_order(upstream, run):
    async def main():
        answers = [
            stream(chunk("1"), chunk(reason="stop")),
            http(b'{"error":{"message":"no"}}', 400),
            stream(chunk("3"), chunk(reason="stop")),
        ]
        async with (
            upstream(Fake(*answers)) as server,
            engine_at(server, slots=1, limits=Limits(max_connections=1)) as engine,
        ):
            first, second, third = await engine.batch_infer([Work(chat())] * 3)
            assert first[0] == [Delta("1")]
            assert second.code is Code.INVALID_REQUEST
            assert third[0] == [Delta("3")]
            with pytest.raises(HeadraceError, match="tokenizer"):
                await engine.tokenize("x", special=True)

    run(main())


def test_a_prompt_is_counted_and_tokens_are_read_where_the_upstream_can(upstream, run):
    async def main():
        told = [
            http(b'{"count": 2, "tokens": [1,2], "token_strs": ["<s>", "x"]}'),
            http(b'{"prompt": "x"}'),
            http(b'{"count": 3, "tokens": [1,2,3]}'),
            http(b'{"tokens": {}}'),
        ]
        fake = Fake(*told)
        async with upstream(fake) as server, engine_at(server, dialect="vllm") as engine:
            found = await engine.tokenize("x", special=True, pieces=True)
            assert found == Tokens((1, 2), ("<s>", "x"))
            assert await engine.detokenize((1, 2)) == "x"
            assert await engine.count_prompt(BEGUN) == 3
            assert fake.asked[2]["continue_final_message"] is True
            assert fake.asked[2]["add_generation_prompt"] is False
            assert fake.asked[1] == {"model": "m", "tokens": [1, 2]}
            assert fake.asked[2]["messages"][0] == {"role": "user", "content": "hi"}
            with pytest.raises(HeadraceError, match="no answer"):
                await engine.tokenize("x", special=True)

    run(main())


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop"])
@pytest.mark.parametrize("live", [True, False])
def test_an_upstream_that_says_which_stop_string_came_is_believed(upstream, run, field, live):
    async def main():
        end = {"index": 0, "finish_reason": "stop", field: "."}
        part = {"content": "a"}
        said = {"choices": [end | {"delta" if live else "message": part}], "usage": {}}
        answer = stream(said) if live else http(json.dumps(said).encode())
        async with upstream(Fake(answer)) as server, engine_at(server) as engine:
            deltas, outcome = await engine.infer(Work(chat(), live=live))
            assert ([delta.text for delta in deltas], outcome.stop) == (["a"], ".")

    run(main())


def test_tokens_are_counted_where_the_upstream_can(upstream, run):
    async def main():
        fake = Fake(http(b'{"count": 3, "tokens": [1,2,3]}'))
        async with upstream(fake) as server, engine_at(server, dialect="vllm") as engine:
            assert await engine.tokenize("x y z", special=True) == Tokens((1, 2, 3))
            asked = {"prompt": "x y z", "add_special_tokens": True, "return_token_strs": False}
            assert fake.asked == [{"model": "m"} | asked]

    run(main())


@pytest.mark.parametrize("options", [{"url": "h:1"}, {"url": "http://h", "dialect": "klingon"}])
def test_impossible_settings_stop_the_construction(options):
    with pytest.raises(ValueError, match=r"is not"):
        OpenAIEngine(OpenAIOptions(name="m", **options))
