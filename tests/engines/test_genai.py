from __future__ import annotations

import contextlib
import os

import pytest
from tests import genai_models
from tests.genai_models import letters_of, said_after, tokens_of

from headrace.domain.request import Message, Request, Sampling
from headrace.engines.engine import Work
from headrace.engines.genai import GenaiEngine, GenaiOptions
from headrace.engines.restarts import RestartRules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return genai_models.model(tmp_path_factory.mktemp("genai"))


@pytest.fixture
def engine(folder, tmp_path):
    """``async with engine(**options) as loaded``: a real process of ONNX Runtime GenAI."""

    @contextlib.asynccontextmanager
    async def start(**options):
        settings = {"slots": 2, "rules": RestartRules(first_s=0.01), **options}
        made = GenaiEngine(
            GenaiOptions(name="letters", folder=str(folder), state=str(tmp_path), **settings),
            dict(os.environ),
        )
        try:
            await made.load()
            yield made
        finally:
            await made.close()

    return start


@pytest.fixture
def done(seen):
    """Run one work to its end; the sink, and how it ended."""

    async def go(engine, work):
        sink = seen()
        engine.stream_infer(work, sink)
        return sink, await sink.over

    return go


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
