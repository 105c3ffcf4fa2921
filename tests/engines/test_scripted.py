from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import TokenLogprob, ToolCallDelta, Usage
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.engine import Work
from headrace.engines.script import Script, ScriptedCall, ScriptedToken
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions

ABC = ("a", "b", "c")


def chat(text="say it", **sampling):
    return Request("m", "chat", (Message("user", text),), sampling=Sampling(**sampling))


@pytest.fixture
def played(run, seen):
    """Play scripts for one work; return the sink, the end and the engine."""

    def go(script, work):
        kept = []

        async def main():
            engine = ScriptedEngine(ScriptedOptions(scripts=(script,)))
            await engine.load()
            sink = seen()
            engine.stream_infer(work, sink)
            assert sink.all == []
            kept.extend([sink, await sink.over, engine])
            await engine.close()

        run(main())
        return kept

    return go


def test_it_says_its_script_and_nothing_else(played):
    sink, outcome, engine = played(Script(ABC), Work(chat()))
    assert sink.batches == [[Delta("a", 0, (1,)), Delta("b", 0, (2,)), Delta("c", 0, (3,))]]
    assert (outcome.reasons, outcome.usage) == (("stop",), Usage(2, 3))
    assert engine.running == 0
    assert engine.info().type == engine.info().name == "scripted"


def test_pauses_separate_what_comes_together(played):
    tokens = ("a", ScriptedToken("b", after_ms=1), "c", ScriptedToken("d", after_ms=1))
    sink, _, _ = played(Script(tokens), Work(chat()))
    assert [[d.text for d in batch] for batch in sink.batches] == [["a"], ["b", "c"], ["d"]]


def test_prefill_is_reported_before_the_first_token(played):
    sink, _, _ = played(Script(ABC, prefill=(1, 5, 9)), Work(chat()))
    assert sink.prefills == [(1, 9), (5, 9), (9, 9)]


def test_max_tokens_is_obeyed(played):
    sink, outcome, _ = played(Script(ABC, repeat=3), Work(chat(max_tokens=4)))
    assert (sink.text(), outcome.reasons, outcome.usage) == ("abca", ("length",), Usage(2, 4))


@pytest.mark.parametrize("cut", range(7))
def test_it_goes_on_from_any_prefix_by_ids(played, cut):
    tokens = (ScriptedToken("a", 70), ScriptedToken("", 71), ScriptedToken("é", 72), *ABC)
    script = Script(tokens)
    whole, _, _ = played(script, Work(chat(max_tokens=6)))
    first = whole.all[:cut]
    prefix = Prefix("".join(d.text for d in first), tuple(i for d in first for i in d.token_ids))
    rest, outcome, _ = played(script, Work(chat(max_tokens=6), (prefix,)))
    assert first + rest.all == whole.all
    assert outcome.usage == Usage(2 + cut, 6 - cut)
    assert outcome.reasons == ("stop",)


def test_another_beginning_cannot_be_gone_on_from(played):
    _, error, _ = played(Script(ABC), Work(chat(), (Prefix("x", (9,)),)))
    assert error.code is Code.NOT_CONTINUABLE


def test_choices_speak_in_step_with_their_own_words(played):
    script = Script(ABC, choices=(("x",),), delay_ms=0.1)
    sink, outcome, _ = played(script, Work(chat(n=2)))
    assert [sink.text(0), sink.text(1)] == ["x", "abc"]
    assert [d.text for d in sink.batches[0]] == ["x", "a"]
    assert outcome == outcome.__class__(("stop", "stop"), Usage(2, 4))


@pytest.mark.parametrize(
    ("tokens", "stop", "text", "reason"),
    [
        (("one ", "t", "wo", " three"), ("two",), "one ", "stop"),
        (("one ", "t", "hree"), ("two",), "one three", "length"),
        (("one ", "t"), ("two",), "one t", "length"),
        (("xaab",), ("ab", "aab"), "x", "stop"),
    ],
)
def test_stop_strings_end_the_text_before_them(played, tokens, stop, text, reason):
    sink, outcome, _ = played(Script(tokens, reason="length"), Work(chat(stop=stop)))
    assert (sink.text(), outcome.reasons) == (text, (reason,))
    assert sink.ids() == tuple(range(1, 1 + outcome.usage.completion_tokens))


def test_text_that_may_become_a_stop_string_is_held_back(played):
    sink, _, _ = played(Script(("a", "t", "x")), Work(chat(stop=("two",))))
    assert [(d.text, d.token_ids) for d in sink.all] == [("a", (1,)), ("", (2,)), ("tx", (3,))]


def test_it_fails_where_the_script_fails(played):
    script = Script(ABC, fail_after=2, fail_code=Code.ENGINE_TIMEOUT)
    sink, error, engine = played(script, Work(chat()))
    assert (sink.text(), error.code, engine.running) == ("ab", Code.ENGINE_TIMEOUT, 0)


def test_it_refuses_where_the_script_refuses(played):
    sink, error, _ = played(Script(ABC, refuse=Code.CONTEXT_LENGTH), Work(chat()))
    assert (sink.all, error.code) == ([], Code.CONTEXT_LENGTH)


def test_logprobs_reasoning_and_tool_calls_are_part_of_a_script(played):
    call = ScriptedCall(0, "c", "f", "{}")
    script = Script(
        (
            ScriptedToken("hm", reasoning=True),
            ScriptedToken("x", logprob=-1.0, top={"x": -1.0, "y": -2.0, "z": -3.0}),
            ScriptedToken("", tool_calls=(call,)),
        ),
        reason="tool_calls",
    )
    sink, outcome, _ = played(script, Work(chat(logprobs=2)))
    assert sink.all[0].reasoning
    top = (("x", -1.0, (120,)), ("y", -2.0, (121,)))
    assert sink.all[1].logprobs == (TokenLogprob("x", -1.0, (120,), top),)
    assert sink.all[2].tool_calls == (ToolCallDelta(0, "c", "f", "{}"),)
    assert outcome.reasons == ("tool_calls",)


def test_scripts_are_chosen_by_prompt_and_by_turn(run):
    async def main():
        scripts = (Script(("x",), when="cat"), Script(("1",), times=1), Script(("2",)))
        engine = ScriptedEngine(ScriptedOptions(scripts=scripts))
        await engine.load()
        works = [Work(chat(text)) for text in ("dog", "a cat", "dog", "dog")]
        answers = [await engine.infer(work) for work in works]
        assert [deltas[0].text for deltas, _ in answers] == ["1", "x", "2", "2"]

    run(main())


def test_a_hanging_run_keeps_its_slot_until_it_is_cancelled(run, seen):
    async def main():
        engine = ScriptedEngine(ScriptedOptions(scripts=(Script(ABC, hang_after=1),)))
        await engine.load()
        sink = seen()
        run_ = engine.stream_infer(Work(chat()), sink)
        await sink.first.wait()
        assert engine.running == 1
        run_.cancel()
        run_.cancel()
        assert engine.running == 0
        assert not sink.over.done()

    run(main())


def test_cancelling_from_inside_a_delivery_ends_it(run, seen):
    async def main():
        engine = ScriptedEngine(ScriptedOptions(scripts=(Script(ABC, delay_ms=0.1),)))
        await engine.load()
        sink = seen()
        kept = sink.deltas
        sink.deltas = lambda deltas: (kept(deltas), run_.cancel())
        run_ = engine.stream_infer(Work(chat()), sink)
        await sink.first.wait()
        other = await engine.infer(Work(chat()))
        assert len(other[0]) == 3
        assert sink.text() == "a"
        assert not sink.over.done()

    run(main())


def test_a_crash_fails_all_runs_until_it_is_loaded_again(run, seen):
    async def main():
        engine = ScriptedEngine(ScriptedOptions(scripts=(Script(ABC, hang_after=1),)))
        await engine.load()
        sinks = [seen(), seen()]
        for sink in sinks:
            engine.stream_infer(Work(chat()), sink)
            await sink.first.wait()
        engine.crash("power")
        assert [(await sink.over).code for sink in sinks] == [Code.ENGINE_FAILED] * 2
        assert engine.health() == ("failed", "power")
        late = seen()
        engine.stream_infer(Work(chat()), late)
        assert (await late.over).code is Code.ENGINE_UNAVAILABLE
        await engine.load()
        assert engine.health()[0] == "ready"

    run(main())


def test_loading_can_take_time_and_fail(run):
    async def main():
        engine = ScriptedEngine(ScriptedOptions(load_ms=1, load_error="no such model"))
        assert engine.health()[0] == "starting"
        with pytest.raises(HeadraceError) as caught:
            engine.info()
        assert caught.value.code is Code.MODEL_LOADING
        with pytest.raises(HeadraceError, match="no such model"):
            await engine.load()
        assert engine.health() == ("failed", "no such model")

    run(main())


def test_a_batch_uses_no_more_slots_than_there_are_and_keeps_order(run):
    async def main():
        scripts = (Script(("bad",), when="7", fail_after=0), Script(("ok",), delay_ms=0.1))
        engine = ScriptedEngine(ScriptedOptions(scripts=scripts, slots=3))
        await engine.load()
        highest = itertools.count()
        peak = []
        start = engine.stream_infer

        def counted(work, sink):
            started = start(work, sink)
            peak.append((next(highest), engine.running))
            return started

        engine.stream_infer = counted
        answers = await engine.batch_infer([Work(chat(f"item {i}")) for i in range(10)])
        assert max(running for _, running in peak) == 3
        failed = [isinstance(answer, HeadraceError) for answer in answers]
        assert failed == [at == 7 for at in range(10)]
        assert await engine.batch_infer([]) == []

    run(main())


def test_a_cancelled_caller_frees_the_slot(run):
    async def main():
        engine = ScriptedEngine(ScriptedOptions(scripts=(Script(ABC, hang_after=1),)))
        await engine.load()
        task = asyncio.create_task(engine.infer(Work(chat())))
        while not engine.running:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.running == 0

    run(main())


def test_a_script_is_plain_data():
    said = b"""
    {"scripts": [{"tokens": ["a", {"text": "b", "after_ms": 5}], "fail_code": "engine_timeout"}]}
    """
    options = msgspec.json.decode(said, type=ScriptedOptions)
    assert options.scripts[0].tokens == ("a", ScriptedToken("b", after_ms=5.0))
    assert msgspec.convert(msgspec.to_builtins(options), ScriptedOptions) == options
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"scripts": [{"token": []}]}', type=ScriptedOptions)


def test_echo_and_unknown_options_are_refused():
    engine = ScriptedEngine(ScriptedOptions())
    with pytest.raises(HeadraceError) as caught:
        engine.check(Request("m", "completion", prompts=("a",), echo=True))
    assert caught.value.param == "echo"
    with pytest.raises(HeadraceError) as caught:
        engine.check(Request("m", "completion", prompts=("a",), extra={"magic": 1}))
    assert caught.value.param == "magic"
