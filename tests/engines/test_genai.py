from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

import pytest
from tests import genai_models
from tests.genai_models import letters_of, said_after, tokens_of

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.engine import Work
from headrace.engines.genai import GenaiEngine, GenaiOptions
from headrace.engines.restarts import RestartRules


@pytest.fixture(scope="module", params=["one by one", "batched"])
def folder(request, tmp_path_factory):
    """Of a model whose sequences are computed each for itself, and of one that computes them together."""
    paged = request.param == "batched"
    return genai_models.model(tmp_path_factory.mktemp("genai"), paged=paged)


@pytest.fixture
def engine(folder, tmp_path):
    """``async with engine(**options) as loaded``: a real process of ONNX Runtime GenAI."""

    @contextlib.asynccontextmanager
    async def start(**options):
        settings = {
            "slots": 2,
            "rules": RestartRules(first_s=0.01),
            "folder": str(folder),
            **options,
        }
        made = GenaiEngine(
            GenaiOptions(name="letters", state=str(tmp_path), **settings), dict(os.environ)
        )
        try:
            await made.load()
            yield made
        finally:
            await made.close()

    return start


def complete(*prompts, **options):
    rest = {name: options.pop(name) for name in ("response_format", "extra") if name in options}
    sampling = Sampling(**{"max_tokens": 12, **options})
    return Request("m", "completion", prompts=prompts or ("hey",), sampling=sampling, **rest)


def chat(text="hey", **options):
    sampling = Sampling(**{"max_tokens": 12, **options})
    return Request("m", "chat", (Message("user", text),), sampling=sampling)


def chat_ids(*texts):
    """Token ids of a rendered chat: texts, and roles as one token each."""
    start, end = (len(genai_models.VOCABULARY) + at for at in (0, 1))
    ids = []
    for role, text in texts:
        ids += [start, *tokens_of(f"{role}\n{text}"), end, *tokens_of("\n")]
    return [*ids, start, *tokens_of("assistant\n")]


def test_a_completion_is_what_the_model_says_token_by_token(run, engine, done):
    async def main():
        async with engine() as genai:
            sink, outcome = await done(genai, Work(complete()))
            said = said_after(tokens_of("hey"), 12)
            assert sink.ids() == tuple(said)
            assert sink.text() == letters_of(said)
            assert len(sink.batches) > 6
            assert sink.prefills[-1] == (3, 3)
            assert (outcome.reasons, outcome.stop) == (("length",), None)
            assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (3, 12)

    run(main())


def test_a_chat_is_laid_out_by_the_model_s_template(run, engine, done):
    async def main():
        async with engine() as genai:
            ids = chat_ids(("user", "hey"))
            sink, outcome = await done(genai, Work(chat()))
            assert sink.ids() == tuple(said_after(ids, 12))
            assert outcome.usage.prompt_tokens == len(ids)
            assert await genai.count_prompt(chat()) == len(ids)

    run(main())


def test_an_answer_that_goes_on_from_a_message_is_its_rest(run, engine, done):
    async def main():
        async with engine() as genai:
            messages = (Message("user", "hey"), Message("assistant", "ab"))
            request = Request("m", "chat", messages, sampling=Sampling(max_tokens=5), goes_on=True)
            sink, _ = await done(genai, Work(request))
            ids = [*chat_ids(("user", "hey")), *tokens_of("ab")]
            assert sink.ids() == tuple(said_after(ids, 5))

    run(main())


def test_the_model_s_own_end_is_a_stop_and_a_character_comes_whole(run, engine, done):
    async def main():
        async with engine() as genai:
            sink, outcome = await done(genai, Work(complete("hey!")))
            assert [delta.text for delta in sink.all] == ["ö", "."]
            assert sink.ids() == tuple(tokens_of("ö."))
            assert (outcome.reasons, outcome.stop) == (("stop",), None)
            sink, outcome = await done(genai, Work(complete("hey!", ignore_eos=True)))
            assert (outcome.reasons, len(sink.ids())) == (("length",), 12)
            sink, outcome = await done(genai, Work(complete("hey!", max_tokens=1)))
            assert (sink.text(), outcome.usage.completion_tokens) == ("", 1)

    run(main())


def test_a_stop_string_ends_the_text_before_it(run, engine, done):
    async def main():
        async with engine() as genai:
            said = letters_of(said_after(tokens_of("hey"), 12))
            sink, outcome = await done(genai, Work(complete(stop=("nothing", said[4:7]))))
            assert (sink.text(), outcome.reasons, outcome.stop) == (said[:4], ("stop",), said[4:7])
            assert outcome.usage.completion_tokens == 7
            assert sink.ids() == tuple(tokens_of(said[:4]))
            # What could have become one, and did not, is not lost.
            sink, _ = await done(genai, Work(complete(stop=(said[10:12] + "!",))))
            assert sink.text() == said

    run(main())


def test_several_runs_are_computed_beside_each_other_and_more_wait(run, engine, seen):
    async def main():
        async with engine() as genai:
            sinks = [seen() for _ in range(5)]
            for at, sink in enumerate(sinks):
                genai.stream_infer(Work(complete("ab" + "c" * at, max_tokens=200)), sink)
            await sinks[1].first.wait()
            assert not sinks[0].over.done()  # the second began before the first was over
            outcomes = await asyncio.gather(*(sink.over for sink in sinks))
            for at, sink in enumerate(sinks):
                assert sink.ids() == tuple(said_after(tokens_of("ab" + "c" * at), 200))
            assert {outcome.reasons for outcome in outcomes} == {("length",)}

    run(main())


def test_choices_of_one_request_count_their_prompt_once(run, engine, done):
    async def main():
        async with engine() as genai:
            request = complete("ab", "abc", n=2, max_tokens=4)
            sink, outcome = await done(genai, Work(request))
            assert [sink.ids(at) for at in range(4)] == [
                tuple(said_after(tokens_of(text), 4)) for text in ("ab", "ab", "abc", "abc")
            ]
            usage = outcome.usage
            assert (usage.prompt_tokens, usage.completion_tokens) == (5, 16)

    run(main())


def test_sampling_with_a_seed_is_repeatable_and_each_choice_has_its_own(run, engine, done):
    async def main():
        async with engine() as genai:
            # The model's own scores are 10 and 0: at this temperature anything may be said.
            work = Work(complete(temperature=50.0, top_p=1.0, top_k=100, seed=7, n=2))
            first, _ = await done(genai, work)
            again, _ = await done(genai, work)
            assert first.ids(0) == again.ids(0) != first.ids(1) == again.ids(1)
            greedy, _ = await done(genai, Work(complete(temperature=50.0, top_k=1, seed=7)))
            assert greedy.ids() == tuple(said_after(tokens_of("hey"), 12))

    run(main())


def test_a_cancelled_run_leaves_within_a_step_and_its_slot_is_free(run, engine, seen, done):
    async def main():
        async with engine(slots=1) as genai:
            sink, waiting = seen(), seen()
            under_way = genai.stream_infer(Work(complete(max_tokens=400)), sink)
            genai.stream_infer(Work(complete(max_tokens=3)), waiting)
            await sink.first.wait()
            assert genai.running == 2
            under_way.cancel()
            under_way.cancel()
            said = len(sink.all)
            assert (await waiting.over).reasons == ("length",)
            assert len(sink.all) == said < 400
            assert not sink.over.done()
            assert genai.running == 0

    run(main())


@pytest.mark.parametrize("exact", [False, True])
def test_a_run_that_lost_its_process_goes_on_from_what_it_said(
    run, engine, seen, done, eventually, exact
):
    async def main():
        async with engine() as genai:
            request = complete("hey", max_tokens=300)
            sink = seen()
            genai.stream_infer(Work(request), sink)
            await sink.first.wait()
            pid = genai.pid
            os.kill(pid, signal.SIGKILL)
            error = await sink.over
            assert error.code is Code.ENGINE_FAILED
            assert error.meaning.retryable
            with pytest.raises(HeadraceError):  # the supervisor may not know it yet
                await genai.tokenize("hey", special=True)
            await eventually(lambda: genai.pid not in (0, pid) and genai.health()[0] == "ready")
            prefix = Prefix(sink.text(), sink.ids())
            rest, outcome = await done(genai, Work(request, (prefix,), exact=exact))
            assert sink.ids() + rest.ids() == tuple(said_after(tokens_of("hey"), 300))
            assert outcome.usage.completion_tokens == 300 - len(prefix.token_ids)
            over = Prefix(letters_of(rest.ids()), tuple(said_after(tokens_of("hey"), 300)))
            _, outcome = await done(genai, Work(request, (over,)))
            assert (outcome.reasons, outcome.usage.completion_tokens) == (("length",), 0)

    run(main())


def test_text_whose_ids_are_not_known_is_gone_on_from_as_text(run, engine, done):
    async def main():
        async with engine() as genai:
            said = letters_of(said_after(tokens_of("hey"), 5))
            sink, _ = await done(genai, Work(complete(), (Prefix(said, (), 5),)))
            assert said + sink.text() == letters_of(said_after(tokens_of("hey"), 12))

    run(main())


def test_a_prompt_in_mid_stream_stands_between_what_was_said(run, engine, done):
    async def main():
        async with engine() as genai:
            said = said_after(chat_ids(("user", "hey")), 4)
            turn = Turn(Prefix(letters_of(said), tuple(said)), Message("user", "more"))
            sink, _ = await done(genai, Work(chat(), (Prefix("", ()),), turns=(turn,)))
            ids = chat_ids(("user", "hey"), ("assistant", letters_of(said)), ("user", "more"))
            # The template writes a line break behind "assistant", as it does before an answer.
            assert sink.ids() == tuple(said_after(ids, 12))

    run(main())


def test_an_answer_with_a_format_has_it_and_goes_on_by_being_computed_again(run, engine, done):
    async def main():
        async with engine() as genai:
            schema = {
                "type": "object",
                "properties": {"a": {"enum": ["zz", "yy"]}},
                "required": ["a"],
            }
            schema["additionalProperties"] = False
            schema["x-guidance"] = {"whitespace_flexible": False}
            wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
            request = complete(response_format=wanted, max_tokens=60, temperature=0.0)
            sink, outcome = await done(genai, Work(request))
            assert outcome.reasons == ("stop",), sink.text()
            assert json.loads(sink.text())["a"] in ("zz", "yy")
            half = sink.text()[:4]
            rest, _ = await done(genai, Work(request, (Prefix(half, sink.ids()[:4]),)))
            assert half + rest.text() == sink.text()
            rest, error = await done(genai, Work(request, (Prefix('{"b', sink.ids()[:3]),)))
            assert error.code is Code.NOT_CONTINUABLE
            wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
            _, error = await done(genai, Work(complete(response_format=wrong)))
            assert (error.code, error.param) == (Code.INVALID_REQUEST, "response_format")

    run(main())


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"min_p": 0.1}, "min_p"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"logit_bias": {"1": 2.0}}, "logit_bias"),
        ({"logprobs": 0}, "logprobs"),
        ({"extra": {"grammar": "x"}}, "grammar"),
        ({"response_format": {"type": "regex"}}, "response_format"),
    ],
)
def test_what_it_lacks_is_refused_by_its_name(engine, folder, tmp_path, options, param):
    genai = GenaiEngine(GenaiOptions(name="m", folder=str(folder), state=str(tmp_path)), {})
    with pytest.raises(HeadraceError) as error:
        genai.check(complete(**options))
    assert (error.value.code, error.value.param) == (Code.UNSUPPORTED, param)
    genai.check(complete(presence_penalty=0.0, logit_bias={}, repeat_penalty=1.1))


def test_a_prompt_that_fills_the_context_is_refused_and_the_others_go_on(run, engine, done):
    async def main():
        async with engine(context=64) as genai:
            assert genai.info().context == 64
            _, error = await done(genai, Work(complete("a" * 64)))
            assert error.code is Code.CONTEXT_LENGTH
            sink, outcome = await done(genai, Work(complete("a" * 60, max_tokens=None)))
            assert (len(sink.ids()), outcome.reasons) == (4, ("length",))
            _, error = await done(genai, Work(complete("")))
            assert error.code is Code.INVALID_REQUEST

    run(main())


def test_a_long_prompt_is_computed_in_pieces_that_are_told(run, engine, done):
    async def main():
        async with engine() as genai:
            sink, _ = await done(genai, Work(complete("a" * 300)))
            assert sink.prefills in ([(128, 300), (256, 300), (300, 300)], [(300, 300)])
            assert sink.ids() == tuple(said_after(tokens_of("a" * 300), 12))

    run(main())


def test_who_wants_the_whole_answer_gets_it_in_one_piece(run, engine, done):
    async def main():
        async with engine() as genai:
            sink, _ = await done(genai, Work(complete(), live=False))
            assert [len(batch) for batch in sink.batches] == [1]
            assert sink.ids() == tuple(said_after(tokens_of("hey"), 12))

    run(main())


def test_texts_become_tokens_and_texts_again(run, engine):
    async def main():
        async with engine() as genai:
            found = await genai.tokenize("hö", special=True, pieces=True)
            assert list(found.ids) == tokens_of("hö")
            assert "".join(found.pieces) == "hö"
            assert await genai.detokenize(found.ids) == "hö"
            with pytest.raises(HeadraceError) as error:
                await genai.detokenize([100_000])
            assert error.value.param == "tokens"

    run(main())


def test_a_folder_that_is_no_model_is_told_and_not_tried_again(run, engine, tmp_path, folder):
    async def main():
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "genai_config.json").write_text("{}")
        with pytest.raises(HeadraceError) as error:
            async with engine(folder=str(broken)):
                """It is not loaded."""
        assert error.value.code is Code.ENGINE_UNAVAILABLE
        assert "model" in error.value.message

    run(main())
