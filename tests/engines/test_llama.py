from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Message, Request, Sampling, TextPart
from headrace.engines.engine import Work
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_child import ChildOptions
from headrace.engines.llama_options import LlamaOptions, shape
from headrace.engines.llama_turns import Marks
from headrace.engines.orphans import end_orphans, started_at
from headrace.engines.restarts import RestartRules
from headrace.engines.still import POSSIBLE, LeadingLlama, Still
from headrace.models.vocabulary import vocabulary_bytes

ROCKETS = "Repeat: 🙂🚀🙂🚀🙂🚀🙂🚀🙂"
COUNTING = "1 2 3 4 5 6 7"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
        },
    },
}
TOOL_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' }}{{- tool | tojson }}
{%- endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments \
within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \
\\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@pytest.fixture
def engine(embedded_model, tmp_path):
    """``async with engine(**options) as loaded``: a real llama.cpp process with the real model."""

    @contextlib.asynccontextmanager
    async def start(**options):
        settings = {"slots": 2, "context": 512, "rules": RestartRules(first_s=0.01), **options}
        made = LlamaEngine(
            LlamaOptions(
                name="smollm2",
                model_path=embedded_model.path,
                state=str(tmp_path),
                partial_tokens=embedded_model.partial_tokens,
                **settings,
            ),
            dict(os.environ),
            2,
        )
        try:
            await made.load()
            yield made
        finally:
            await made.close()

    return start


def chat(text="What is the capital of France?", **options):
    names = ("tools", "tool_choice", "response_format", "extra")
    rest = {name: options.pop(name) for name in names if name in options}
    sampling = Sampling(**{"temperature": 0.0, "max_tokens": 24, "ignore_eos": True, **options})
    return Request("m", "chat", (Message("user", text),), sampling=sampling, **rest)


def weather_asked(city):
    call = {"name": "weather", "arguments": json.dumps({"city": city})}
    calls = [{"id": "1", "type": "function", "function": call}]
    return Message("user", f"Weather in {city}?"), Message("assistant", "", tool_calls=calls)


def complete(*prompts, echo=False, **options):
    sampling = Sampling(**{"temperature": 0.0, "max_tokens": 12, **options})
    return Request("m", "completion", prompts=prompts, sampling=sampling, echo=echo)


def prefix_of(deltas):
    ids = tuple(i for d in deltas for i in d.token_ids)
    return Prefix("".join(d.text for d in deltas), ids, len(ids))


def calls_of(deltas):
    """The tool call that its pieces make, as a prefix has it."""
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    arguments = "".join(piece.arguments for piece in pieces)
    return (msgspec.structs.replace(pieces[0], arguments=arguments),)


async def slots_busy(engine):
    slots = json.loads(await engine.client.get("/slots"))
    return sum(slot["is_processing"] for slot in slots)


async def decodes(engine):
    lines = (await engine.client.get("/metrics")).decode().splitlines()
    line = next(line for line in lines if line.startswith("llamacpp:n_decode_total "))
    return int(float(line.split()[1]))


async def deferred(engine):
    """Requests in the process's own line."""
    lines = (await engine.client.get("/metrics")).decode().splitlines()
    line = next(line for line in lines if line.startswith("llamacpp:requests_deferred "))
    return int(float(line.split()[1]))


def test_the_ids_of_every_delta_spell_its_text(run, engine, done, embedded_model):
    spelled = vocabulary_bytes(Path(embedded_model.path))

    async def main():
        async with engine() as llama:
            info = llama.info()
            assert (info.type, info.slots, info.context) == ("llama", 2, 512)
            assert (info.parameters, info.continues) == (134_515_008, True)
            for request in (chat(), complete(ROCKETS)):
                sink, outcome = await done(llama, Work(request))
                assert len(sink.all) > 3
                for delta in sink.all:
                    assert b"".join(spelled[i] for i in delta.token_ids).decode() == delta.text
                assert outcome.usage.completion_tokens == len(sink.ids())
                assert outcome.reasons == ("length",)
                assert sink.prefills[-1] == (outcome.usage.prompt_tokens,) * 2
            assert any(len(delta.token_ids) > 1 for delta in sink.all)
            assert llama.running == 0

    run(main())


@pytest.mark.parametrize("exact", [False, True])
def test_it_goes_on_by_ids_without_losing_or_repeating_a_token(run, engine, done, exact):
    async def main():
        async with engine() as llama:
            for request in (chat("List five colours."), complete(ROCKETS)):
                whole, end = await done(llama, Work(request, exact=exact))
                for cut in (1, 3, len(whole.all) - 1):
                    first = prefix_of(whole.all[:cut])
                    work = Work(request, (first,), exact=exact)
                    rest, outcome = await done(llama, work)
                    assert len(first.token_ids + rest.ids()) == len(whole.ids())
                    used = outcome.usage
                    assert used.prompt_tokens == end.usage.prompt_tokens + len(first.token_ids)
                    assert used.completion_tokens == len(rest.ids())
                    if exact:
                        assert first.token_ids + rest.ids() == whole.ids()
                        assert first.text + rest.text() == whole.text()

    run(main())


def test_a_choice_that_has_all_its_tokens_is_not_computed_again(run, engine, done):
    async def main():
        async with engine() as llama:
            before = await decodes(llama)
            work = Work(chat(max_tokens=2), (Prefix("a b", (1, 2)),))
            sink, outcome = await done(llama, work)
            assert (sink.all, outcome.reasons) == ([], ("length",))
            assert await decodes(llama) == before

    run(main())


def test_text_without_ids_is_gone_on_from_as_text(run, engine, done):
    async def main():
        async with engine() as llama:
            sink, _ = await done(llama, Work(complete(COUNTING), (Prefix(" 8 9", ()),)))
            assert sink.text().startswith(" 10")
            _, error = await done(llama, Work(complete((1, 2)), (Prefix("x", ()),)))
            assert error.code is Code.NOT_CONTINUABLE

    run(main())


def turn_of(deltas, text, role="user"):
    return Turn(prefix_of(deltas), Message(role, text))


@pytest.mark.parametrize("request_", [chat("List five colours."), complete(COUNTING)])
def test_a_prompt_in_mid_stream_computes_only_what_is_new(run, engine, seen, done, request_):
    async def main():
        async with engine(slots=2) as llama:
            sink = seen()
            first = llama.stream_infer(Work(request_), sink)
            while len(sink.all) < 8:
                sink.first.clear()
                await sink.first.wait()
            first.cancel()
            turns = (turn_of(sink.all, "Why?"), turn_of((), "Be brief.", "system"))
            rest, outcome = await done(llama, Work(request_, (Prefix("", ()),), turns=turns))
            used = outcome.usage
            assert used.completion_tokens == len(rest.ids()) > 0
            new = used.prompt_tokens - used.cached_tokens
            assert 0 < new < 40
            assert used.cached_tokens >= len(sink.ids())
            # And it is, token for token, what a conversation of these texts is.
            if request_.kind == "chat":
                told = Message("assistant", prefix_of(sink.all).text)
                said = (*request_.messages, told, turns[0].message, turns[1].message)
                _, same = await done(llama, Work(replace(request_, messages=said)))
                assert same.usage.prompt_tokens == used.prompt_tokens
            # It goes on from the open turn after it, and from a turn whose ids nobody knows.
            more = Work(request_, (prefix_of(rest.all[:2]),), turns=turns)
            again, _ = await done(llama, more)
            assert again.ids()
            text_only = (Turn(Prefix(sink.text(), ()), turns[0].message),)
            again, _ = await done(llama, Work(request_, (Prefix("So", ()),), turns=text_only))
            assert again.ids()

    run(main())


def test_what_takes_no_prompt_says_what_of_it(run, engine):
    async def main():
        async with engine() as llama:
            for field, value in (
                ("tools", [WEATHER]),
                ("response_format", {"type": "json_object"}),
                ("extra", {"grammar": 'root ::= "a"'}),
            ):
                with pytest.raises(HeadraceError) as error:
                    llama.check_prompt(chat(**{field: value}))
                assert error.value.code is Code.UNSUPPORTED
                assert error.value.param in (field, "grammar")

    run(main())


STRICT_TEMPLATE = """\
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant/user/assistant') }}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def test_a_template_that_wants_roles_in_turn_gets_them(run, engine, done):
    async def main():
        async with engine(chat_template=STRICT_TEMPLATE) as llama:
            first, _ = await done(llama, Work(chat(max_tokens=5)))
            for turns in (
                (turn_of((), "Why?"), turn_of((), "Be brief.", "system")),
                (turn_of(first.all, "Be brief.", "system"), turn_of((), "Why?")),
            ):
                sink, outcome = await done(llama, Work(chat(), (Prefix("", ()),), turns=turns))
                assert outcome.reasons == ("length",), outcome
                assert sink.ids()
            marks = Marks(chat("Hi.").messages, turns, True)
            assert [message.role for message in marks.messages] == ["user", "assistant", "user"]
            assert marks.messages[2].content == "Be brief.\n\nWhy?"

    run(main())


def test_a_template_that_hides_earlier_answers_is_told():
    marks = Marks(chat().messages, (Turn(Prefix("x", (1,)), Message("user", "y")),))
    mark = marks.messages[1].content
    assert marks.split(f"a{mark}b") == ("a", 1, "b")
    for rendered in ("ab", f"{mark} {mark}"):
        with pytest.raises(HeadraceError) as error:
            marks.split(rendered)
        assert error.value.code is Code.NOT_CONTINUABLE


def test_cancel_frees_the_slot_within_two_decode_steps(run, engine, seen, done):
    async def main():
        async with engine(slots=1) as llama:
            sink = seen()
            run_ = llama.stream_infer(Work(chat(max_tokens=400, ignore_eos=True)), sink)
            await sink.first.wait()
            before = await decodes(llama)
            run_.cancel()
            run_.cancel()
            assert llama.running == 0
            while await slots_busy(llama):
                """Ask again."""
            assert await decodes(llama) - before <= 2
            assert not sink.over.done()
            llama.stream_infer(Work(chat()), seen()).cancel()
            again = llama.stream_infer(Work(chat("Count.", max_tokens=99)), seen())
            while not await slots_busy(llama):
                """Ask again."""
            again.cancel()  # its slot goes to the next run before llama.cpp has noticed
            _, outcome = await done(llama, Work(chat(max_tokens=3)))
            assert outcome.reasons == ("length",)

    run(main())


def test_an_answer_that_nobody_reads_token_by_token_is_cancelled_like_a_stream(
    run, engine, seen, done
):
    async def main():
        async with engine(slots=2) as llama:
            other = seen()  # whoever streams beside it keeps llama.cpp from looking by itself
            llama.stream_infer(Work(chat("Count.", max_tokens=300)), other)
            await other.first.wait()
            run_ = llama.stream_infer(Work(chat(max_tokens=300), live=False), seen())
            while await slots_busy(llama) < 2:
                """Ask again."""
            before = await decodes(llama)
            run_.cancel()
            while await slots_busy(llama) == 2:
                """Ask again."""
            # Two steps, and what the other one makes while this is asked.
            assert await decodes(llama) - before <= 4
            assert not other.over.done()

    run(main())


def test_the_next_request_waits_in_the_process_and_takes_a_slot_without_a_batch_between(
    run, engine, seen, done
):
    async def main():
        async with engine(slots=1) as llama:
            texts = [f"{number} is a number." for number in range(4)]
            # The first goes on for long enough that the others are seen waiting.
            works = [
                Work(complete(text, max_tokens=8 if at else 60)) for at, text in enumerate(texts)
            ]
            alone = [(await done(llama, work))[0] for work in works]
            first, following = seen(), seen()
            llama.stream_infer(works[0], first)
            llama.stream_infer(works[1], following)
            await first.first.wait()
            while not await deferred(llama):
                """Ask again."""
            left = [llama.stream_infer(work, seen()) for work in works[2:]]
            await asyncio.gather(first.over, following.over)
            for one in left:
                one.cancel()
            again, _ = await done(llama, works[3])
            found = [sink.text() for sink in (first, following, again)]
            assert found == [alone[at].text() for at in (0, 1, 3)]
            assert llama.client.slots.free == 1

    run(main())


def test_who_leaves_the_line_of_the_process_costs_at_most_a_batch(run, engine, seen):
    async def main():
        async with engine(slots=1, batch=32) as llama:
            first = seen()
            holder = llama.stream_infer(Work(chat(max_tokens=400)), first)
            await first.first.wait()
            prompt = " ".join(map(str, range(100)))
            waiting = llama.stream_infer(Work(complete(prompt)), seen())
            while not await deferred(llama):
                """Ask again."""
            waiting.cancel()
            before = await decodes(llama)
            holder.cancel()
            while await slots_busy(llama) or await deferred(llama):
                """Ask again."""
            # Of the holder: the one under way and the one before it is noticed; of the other: one.
            assert await decodes(llama) - before <= 3

    run(main())


def test_cancel_in_prefill_ends_with_the_micro_batch_under_way(run, engine, seen):
    async def main():
        async with engine(batch=32, slots=1) as llama:
            for number in range(4):
                sink = seen()
                prompt = f"{number} " + " ".join(map(str, range(120)))
                run_ = llama.stream_infer(Work(complete(prompt)), sink)
                while len(sink.prefills) < 1 + number:
                    sink.progressed.clear()
                    await sink.progressed.wait()
                before = await decodes(llama)
                run_.cancel()
                while await slots_busy(llama):
                    """Ask again."""
                assert await decodes(llama) - before <= 1  # the one under way
                assert all(done < total for done, total in sink.prefills)

    run(main())


def test_a_prompt_in_steps_is_computed_once_and_what_a_slot_has_is_used(run, engine, done):
    async def main():
        async with engine(batch=32, slots=2) as llama:
            text = " ".join(map(str, range(60)))
            first, end = await done(llama, Work(complete(text)))
            total = end.usage.prompt_tokens
            assert sorted(set(first.prefills)) == [
                (at, total) for at in [*range(32, total, 32), total]
            ]
            assert end.usage.cached_tokens == 0
            await done(llama, Work(complete("Something else.")))
            said = text + first.text()
            before = await decodes(llama)
            _, end = await done(llama, Work(complete(said + " and so on", max_tokens=1)))
            assert end.usage.cached_tokens >= total
            assert await decodes(llama) - before == 1
            whole, _ = await done(llama, Work(complete(text), exact=True))
            assert whole.ids() == first.ids()
            _, end = await done(llama, Work(complete(text), exact=True))
            assert end.usage.cached_tokens == 0

    run(main())


def test_choices_and_prompts_are_streams_of_their_own(run, engine, done):
    async def main():
        async with engine() as llama:
            request = complete("a b c", COUNTING, n=2, max_tokens=4)
            sink, outcome = await done(llama, Work(request))
            assert sink.text(0) == sink.text(1)
            assert sink.text(2) == sink.text(3) == " 8 9"
            assert outcome.reasons == ("length",) * 4
            assert outcome.usage.completion_tokens == 16
            assert outcome.usage.prompt_tokens == 3 + 13
            seeded = [Work(chat(n=2, seed=5, temperature=1.0)) for _ in range(2)]
            first, second = [(await done(llama, work))[0] for work in seeded]
            assert first.text(0) == second.text(0)
            assert first.text(1) == second.text(1)
            assert first.text(0) != first.text(1)

    run(main())


def test_more_runs_than_slots_wait_for_their_turn(run, engine, done):
    async def main():
        async with engine() as llama:
            ends = await asyncio.gather(*(done(llama, Work(chat(f"{i}"))) for i in range(6)))
            assert all(outcome.reasons for _, outcome in ends)
            assert llama.client.slots.free == 2

    run(main())


def test_stop_strings_are_left_out_and_what_became_none_is_delivered(run, engine, done):
    async def main():
        async with engine() as llama:
            sink, outcome = await done(llama, Work(complete(COUNTING, stop=(" 10 11",))))
            assert (sink.text(), outcome.reasons) == (" 8 9", ("stop",))
            held = complete(COUNTING, max_tokens=4, stop=(" 8 9 10",))
            sink, outcome = await done(llama, Work(held))
            assert (sink.text(), outcome.reasons) == (" 8 9", ("length",))
            assert len(sink.ids()) == 4

    run(main())


def test_a_whole_answer_has_the_same_text_and_ids(run, engine, done):
    async def main():
        async with engine() as llama:
            streamed, _ = await done(llama, Work(complete(ROCKETS, logprobs=1), exact=True))
            work = Work(complete(ROCKETS, logprobs=1), exact=True, live=False)
            whole, outcome = await done(llama, work)
            assert (whole.text(), whole.ids()) == (streamed.text(), streamed.ids())
            assert len(whole.all) == 1
            assert "".join(one.token for one in whole.all[0].logprobs) == whole.text()
            assert outcome.usage.completion_tokens == len(whole.ids())

    run(main())


def test_logprobs_carry_as_many_alternatives_as_asked(run, engine, done):
    async def main():
        async with engine() as llama:
            for wanted in (0, 3):
                sink, _ = await done(llama, Work(chat(logprobs=wanted, max_tokens=3)))
                for delta in sink.all:
                    (one,) = delta.logprobs
                    assert bytes(one.bytes).decode() == one.token == delta.text
                    assert one.logprob <= 0
                    assert len(one.top) == wanted
                    assert not wanted or one.top[0][1] == one.logprob

    run(main())


def test_an_echoed_prompt_comes_first_with_its_computed_logprobs(run, engine, done):
    async def main():
        async with engine() as llama:
            request = complete("The sky is", echo=True, logprobs=1, max_tokens=2)
            sink, outcome = await done(llama, Work(request))
            assert sink.all[0].text == "The sky is"
            first, *others = sink.all[0].logprobs
            assert (first.token, first.logprob) == ("The", None)
            assert [one.token for one in others] == [" sky", " is"]
            for one in others:  # the most likely token is at least as likely as the prompt's own
                assert one.logprob <= one.top[0][1] <= 0
            assert outcome.usage.completion_tokens == 2
            plain, _ = await done(llama, Work(complete((504, 6376), echo=True, max_tokens=0)))
            assert plain.all[0].text == "The sky"
            assert len(plain.all) == 1
            long = complete("word " * 100, echo=True, logprobs=1)
            _, error = await done(llama, Work(long))
            assert (error.code, error.param) == (Code.UNSUPPORTED, "logprobs")
            assert "64 tokens" in error.message
            work = Work(complete("The sky", echo=True), (Prefix("The sky is", (314,)),))
            rest, _ = await done(llama, work)
            assert not rest.text().startswith("The sky")

    run(main())


def test_an_answer_obeys_its_schema_and_goes_on_within_it(run, engine, done):
    person = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }

    async def main():
        async with engine() as llama:
            format_ = {"type": "json_schema", "json_schema": {"name": "c", "schema": person}}
            options = {"response_format": format_, "max_tokens": 60, "ignore_eos": False}
            request = chat("A person as JSON.", **options)
            whole, end = await done(llama, Work(request))
            assert set(json.loads(whole.text())) == {"name", "age"}
            assert end.reasons == ("stop",)
            for cut in (1, 4, len(whole.all) - 1, len(whole.all)):
                first = prefix_of(whole.all[:cut])
                rest, outcome = await done(llama, Work(request, (first,)))
                assert first.text + rest.text() == whole.text()
                assert outcome.reasons == ("stop",)
                used, known = outcome.usage, first.tokens
                assert used.completion_tokens == end.usage.completion_tokens - known
                assert used.prompt_tokens == end.usage.prompt_tokens + known
            _, error = await done(llama, Work(request, (Prefix('{"city', (107, 1, 2)),)))
            assert error.code is Code.NOT_CONTINUABLE
            more = Prefix(whole.text() + "}", whole.ids())
            _, error = await done(llama, Work(request, (more,)))
            assert error.code is Code.NOT_CONTINUABLE
            seeded = chat("A person as JSON.", **options, temperature=1.0, seed=7)
            whole, _ = await done(llama, Work(seeded))
            rest, _ = await done(llama, Work(seeded, (prefix_of(whole.all[:5]),)))
            assert prefix_of(whole.all[:5]).text + rest.text() == whole.text()

    run(main())


def test_a_tool_call_is_forced_where_the_template_knows_no_tools(run, engine, done):
    async def main():
        other = {"type": "function", "function": {"name": "clock"}}
        said = [m for city in ("Rome", "Berlin") for m in weather_asked(city)]
        said.append(Message("tool", "rain", tool_call_id="1"))
        messages = (*said, Message("user", "Weather in Paris?"))
        asked = chat(tools=[WEATHER, other], max_tokens=60, ignore_eos=False)
        asked = msgspec.structs.replace(asked, messages=messages)
        named = {"type": "function", "function": {"name": "weather"}}
        async with engine(context=1024) as llama:
            for choice in (None, "auto"):
                with pytest.raises(HeadraceError) as caught:
                    llama.check(msgspec.structs.replace(asked, tool_choice=choice))
                assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, "tools")
            nobody = {"type": "function", "function": {"name": "nobody"}}
            _, error = await done(llama, Work(msgspec.structs.replace(asked, tool_choice=nobody)))
            assert (error.code, error.param) == (Code.INVALID_REQUEST, "tool_choice")
            for choice, live in (("required", True), (named, True), (named, False)):
                request = msgspec.structs.replace(asked, tool_choice=choice)
                sink, outcome = await done(llama, Work(request, live=live))
                pieces = [call for delta in sink.all for call in delta.tool_calls]
                assert (sink.text(), outcome.reasons) == ("", ("tool_calls",))
                assert (len(pieces) > 3) is live
                assert [piece.name for piece in pieces if piece.name] == [pieces[0].name]
                assert pieces[0].id.startswith("call_")
                arguments = json.loads("".join(piece.arguments for piece in pieces))
                assert pieces[0].name in ("weather", "clock")
                assert choice == "required" or set(arguments) == {"city"}
            request = msgspec.structs.replace(asked, tool_choice=named)
            whole, end = await done(llama, Work(request))
            for cut in (1, 3):
                told = calls_of(whole.all[:cut])
                rest, outcome = await done(llama, Work(request, (Prefix("", (), cut, told),)))
                pieces = [call for delta in rest.all for call in delta.tool_calls]
                assert not any(piece.id or piece.name for piece in pieces)
                got = told[0].arguments + "".join(piece.arguments for piece in pieces)
                assert got == calls_of(whole.all)[0].arguments
                assert outcome.usage.prompt_tokens == end.usage.prompt_tokens + cut
            plain = msgspec.structs.replace(asked, tool_choice="none")
            sink, _ = await done(llama, Work(plain))
            assert sink.text()
            assert not any(delta.tool_calls for delta in sink.all)

    run(main())


def test_tools_that_the_template_knows_go_through_it(run, engine, done):
    async def main():
        asked = chat(tools=[WEATHER], tool_choice="required", max_tokens=60, ignore_eos=False)
        said = [m for city in ("Rome", "Berlin", "Madrid") for m in weather_asked(city)]
        messages = (*said, Message("user", "Weather in Paris?"))
        request = msgspec.structs.replace(asked, messages=messages)
        async with engine(chat_template=TOOL_TEMPLATE) as llama:
            llama.check(msgspec.structs.replace(request, tool_choice="auto"))
            sink, outcome = await done(llama, Work(request))
            (call,) = calls_of(sink.all)
            assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris"})
            assert {total for _, total in sink.prefills} == {outcome.usage.prompt_tokens}
            assert outcome.reasons == ("tool_calls",)
            told = calls_of(sink.all[:2])
            rest, _ = await done(llama, Work(request, (Prefix("", (), 2, told),)))
            pieces = [piece for delta in rest.all for piece in delta.tool_calls]
            assert not any(piece.id or piece.name for piece in pieces)
            assert told[0].arguments + "".join(p.arguments for p in pieces) == call.arguments
            _, error = await done(llama, Work(request, (Prefix("x", (1,)),)))
            assert error.code is Code.NOT_CONTINUABLE

    run(main())


def test_an_answer_goes_on_from_the_assistants_last_message(run, engine, done):
    async def main():
        whole = chat("Count from 1 to 9.", max_tokens=12)
        begun = msgspec.structs.replace(
            whole, messages=(*whole.messages, Message("assistant", "1, 2, 3,")), goes_on=True
        )
        async with engine() as llama:
            sink, outcome = await done(llama, Work(begun))
            assert sink.text().startswith(" 4, 5")
            assert await llama.count_prompt(begun) == outcome.usage.prompt_tokens
            rest, _ = await done(llama, Work(begun, (Prefix(*_first(sink.all, 3)),)))
            assert _first(sink.all, 3)[0] + rest.text() == sink.text()
            with pytest.raises(HeadraceError) as caught:
                llama.check_prompt(begun)
            assert caught.value.param == "messages"

    run(main())


def _first(deltas, count):
    """Text and ids of the first deltas."""
    first = deltas[:count]
    return "".join(d.text for d in first), tuple(id for d in first for id in d.token_ids)


def test_what_it_cannot_do_is_refused_by_name(run, engine, done):
    async def main():
        image = ImagePart({"url": "data:image/png;base64,AA"})
        refused = {
            "messages": msgspec.structs.replace(
                chat(), messages=(Message("user", [TextPart("what?"), image]),)
            ),
            "response_format": chat(response_format={"type": "xml"}),
            "logit_bias": chat(logit_bias={"x": 1.0}),
            "magic": chat(extra={"magic": 1}),
        }
        async with engine() as llama:
            for param, request in refused.items():
                with pytest.raises(HeadraceError) as caught:
                    llama.check(request)
                assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, param)
            _, error = await done(llama, Work(complete("a " * 600)))
            assert error.code is Code.CONTEXT_LENGTH
            assert "601" in error.message
            assert "512" in error.message
            bad = chat(extra={"grammar": "root ::= ["})
            _, error = await done(llama, Work(bad))
            assert error.code is Code.INVALID_REQUEST
            _, error = await done(llama, Work(complete((1, 900_000))))
            assert error.code is Code.INVALID_REQUEST
            assert len((await llama.tokenize("hello world", special=False)).ids) == 2
            assert await slots_busy(llama) == 0
            assert llama.client.slots.free == 2

    run(main())


def test_it_tells_of_tokens_and_counts_a_prompt_as_it_computes_it(run, engine, done):
    async def main():
        async with engine() as llama:
            found = await llama.tokenize("Hello 😀", special=False, pieces=True)
            assert found.pieces is not None
            raw = [p.encode() if isinstance(p, str) else bytes(p) for p in found.pieces]
            assert b"".join(raw).decode() == "Hello 😀"
            assert await llama.detokenize(found.ids) == "Hello 😀"
            assert await llama.detokenize(()) == ""
            with pytest.raises(HeadraceError) as caught:
                await llama.detokenize((1, 900_000))
            assert (caught.value.code, caught.value.param) == (Code.INVALID_REQUEST, "tokens")
            tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
            for request in (
                chat(max_tokens=1),
                chat(tools=tools, tool_choice="required", max_tokens=1),
            ):
                outcome = (await llama.infer(Work(request)))[1]
                assert await llama.count_prompt(request) == outcome.usage.prompt_tokens

    run(main())


def test_it_says_which_stop_string_came(run, engine, done):
    async def main():
        async with engine() as llama:
            deltas, _ = await llama.infer(Work(complete(COUNTING, max_tokens=9)))
            last = "".join(delta.text for delta in deltas)[-3:]
            request = complete(COUNTING, max_tokens=20, stop=("never", last))
            _, outcome = await llama.infer(Work(request))
            assert (outcome.reasons, outcome.stop) == (("stop",), last)
            _, outcome = await llama.infer(Work(complete(COUNTING, max_tokens=2)))
            assert (outcome.reasons, outcome.stop) == (("length",), None)

    run(main())


def test_a_bias_forbids_a_token(run, engine, done):
    async def main():
        async with engine() as llama:
            first, _ = await done(llama, Work(complete(COUNTING, max_tokens=2)))
            taken = str(first.ids()[1])
            second, _ = await done(
                llama, Work(complete(COUNTING, max_tokens=2, logit_bias={taken: -100.0}))
            )
            assert second.ids()[1] != first.ids()[1]

    run(main())


def test_the_death_of_the_process_fails_its_runs_and_it_comes_back(run, engine, seen, eventually):
    async def main():
        async with engine() as llama:
            sinks = [seen(), seen()]
            for sink in sinks:
                llama.stream_infer(Work(chat(max_tokens=400, ignore_eos=True)), sink)
                await sink.first.wait()
            first = llama.pid
            os.kill(first, signal.SIGKILL)
            for sink in sinks:
                error = await sink.over
                assert error.code is Code.ENGINE_FAILED
                assert error.meaning.retryable
            await eventually(lambda: llama.health()[0] != "ready" or llama.pid != first)
            late = seen()
            llama.stream_infer(Work(chat()), late)
            error = await late.over
            if isinstance(error, HeadraceError):
                assert error.meaning.retryable
                assert error.retry_after_s
            await eventually(lambda: llama.health()[0] == "ready")
            assert llama.pid not in (0, first)
            again = seen()
            llama.stream_infer(Work(chat()), again)
            assert (await again.over).reasons == ("length",)
            assert llama.running == 0

    run(main())


def test_a_process_that_dies_while_it_is_asked_what_it_can_is_followed_by_one_that_is_asked_again(
    run, embedded_model, tmp_path
):
    class Shot(LlamaEngine):
        asked = 0

        async def _learn(self, client):
            Shot.asked += 1
            if Shot.asked == 1:
                os.kill(self._supervisor.pid, signal.SIGKILL)
            return await super()._learn(client)

    async def main():
        options = LlamaOptions(
            name="shot",
            model_path=embedded_model.path,
            state=str(tmp_path),
            slots=1,
            context=256,
            rules=RestartRules(first_s=0.01),
        )
        engine = Shot(options, dict(os.environ), 2)
        await engine.load()
        assert Shot.asked == 2
        assert engine.info().context == 256
        await engine.close()

    run(main())


def test_draining_lets_runs_end_and_closing_fails_them(run, engine, seen):
    async def main():
        async with engine() as llama:
            short, late = seen(), seen()
            llama.stream_infer(Work(chat()), short)
            await short.first.wait()
            await llama.drain(30)
            assert short.over.result().reasons == ("length",)
            llama.stream_infer(Work(chat()), late)
            assert (await late.over).code is Code.SHUTTING_DOWN
        async with engine() as llama:
            long = seen()
            llama.stream_infer(Work(chat(max_tokens=400, ignore_eos=True)), long)
            await long.first.wait()
            await llama.drain(0.01)
            pid = llama.pid
            await llama.close()
            assert (await long.over).code is Code.ENGINE_UNAVAILABLE
            assert started_at(pid) is None
            assert llama.health()[0] == "closed"

    run(main())


def test_a_file_that_is_no_model_fails_with_the_reason(run, tmp_path):
    async def main():
        path = tmp_path / "model.gguf"
        path.write_bytes(b"GGUF nonsense")
        options = LlamaOptions(name="m", model_path=str(path), state=str(tmp_path))
        llama = LlamaEngine(options, dict(os.environ), 2)
        assert llama.health()[0] == "starting"
        with pytest.raises(HeadraceError) as caught:
            await llama.load()
        assert caught.value.code is Code.ENGINE_UNAVAILABLE
        assert str(path) in caught.value.message
        assert llama.health()[0] == "failed"
        await llama.close()

    run(main())


SERVER = """
import asyncio, os, sys
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_turns import Marks
from headrace.engines.llama_child import ChildOptions
from headrace.engines.llama_options import LlamaOptions

async def main():
    options = LlamaOptions(
        name="m", model_path=sys.argv[1], state=sys.argv[2], slots=1, context=128
    )
    engine = LlamaEngine(options, dict(os.environ), 1)
    await engine.load()
    print(engine.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_no_engine_outlives_a_server_that_was_killed(run, embedded_model, tmp_path, eventually):
    arguments = (sys.executable, "-c", SERVER, embedded_model.path, str(tmp_path))

    async def main():
        server = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        pid = int(await server.stdout.readline())
        assert started_at(pid)
        server.kill()
        await server.wait()
        await eventually(lambda: started_at(pid) is None)
        assert end_orphans(str(tmp_path)) == []

    run(main())


@pytest.mark.parametrize(
    ("cpus", "expected"), [(1, (1, 1)), (2, (1, 2)), (8, (4, 8)), (64, (32, 64))]
)
def test_threads_leave_room_for_the_server(cpus, expected):
    options = LlamaOptions(name="m", model_path="", state="")
    chosen = shape(options, cpus)
    assert (chosen.threads, chosen.batch_threads) == expected
    given_ = msgspec.structs.replace(options, threads=3, ubatch=32, slots=1, context=99)
    chosen = shape(given_, cpus)
    assert (chosen.threads, chosen.batch, chosen.ubatch) == (3, 32, 32)
    assert (chosen.slots, chosen.context) == (1, 99)


@pytest.mark.skipif(not POSSIBLE, reason="only Linux has what it needs")
def test_the_process_for_rows_takes_what_nobody_wants(run, engine):
    async def main():
        async with engine(spare=True) as rows:
            assert os.sched_getscheduler(rows.pid) == os.SCHED_IDLE
            assert told_of(rows.pid, "oom_score_adj") == "1000\n"

    run(main())


FORBIDDEN = """
import os
from headrace.engines import llama_child
def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
os.sched_setscheduler = refuse
llama_child.main()
"""


@pytest.mark.skipif(not POSSIBLE, reason="only Linux has what it needs")
def test_a_process_for_rows_that_may_not_stand_back_says_so():
    told = msgspec.json.encode(ChildOptions("nowhere", os.getpid(), spare=True))
    command = [sys.executable, "-c", FORBIDDEN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(told + b"\n")  # and is left open: its end means that the server is gone
        child.stdin.flush()
        error = json.loads(child.stdout.readline())["error"]
        assert child.wait() == 1
    assert error == (
        "RuntimeError: it may not give way to other processes: [Errno 1] Operation not permitted"
    )


@pytest.mark.skipif(not POSSIBLE, reason="only Linux has what it needs")
def test_another_process_stands_until_the_first_token(
    run, seen, eventually, embedded_model, tmp_path
):
    async def main():
        still = Still(held_s=3600.0)
        path = embedded_model.path
        options = LlamaOptions(name="m", model_path=path, state=str(tmp_path), slots=1, context=512)
        leading = LeadingLlama(options, dict(os.environ), 2, [still])
        other = await asyncio.create_subprocess_exec("sleep", "3600")
        await leading.load()
        try:
            sink = seen()
            leading.stream_infer(Work(chat(max_tokens=2)), sink)
            await sink.over
            assert state_of(other.pid) != "T"  # it is not known yet
            still.engine = Slept(other.pid)
            sink = seen()
            leading.stream_infer(Work(chat(max_tokens=2)), sink)
            await eventually(lambda: state_of(other.pid) == "T")
            assert not sink.batches
            await sink.first.wait()
            await eventually(lambda: state_of(other.pid) != "T")
        finally:
            other.kill()
            await other.wait()
            await leading.close()

    run(main())


@pytest.mark.skipif(not POSSIBLE, reason="only Linux has what it needs")
def test_a_process_that_is_made_to_stand_is_not_blamed_for_its_silence(run, seen, engine):
    async def main():
        async with engine() as other:
            still = Still(held_s=3600.0)
            still.engine = other
            streams, sink = other.client.streams, seen()
            other.stream_infer(Work(chat(max_tokens=60)), sink)
            await sink.first.wait()
            assert streams._sweeper is not None
            still.began()
            assert streams._sweeper is None  # so nobody counts
            still.came()
            assert streams._sweeper is not None
            await sink.over

    run(main())


def state_of(pid):
    """As the kernel has it: `T` stands still."""
    return told_of(pid, "stat").rpartition(")")[2].split()[0]


class Slept:
    """A process to stop that is no engine."""

    def __init__(self, pid):
        self.serving_pid = pid

    def stands(self, still):
        pass


def told_of(pid, what):
    return Path(f"/proc/{pid}/{what}").read_text()
