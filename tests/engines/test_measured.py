"""How long an upstream takes to begin its answers is told to who decides what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json

import pytest
from tests.engines.test_openai import Fake, chat, chunk, http, stream

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.engines.engine import Work
from headrace.engines.measured import MeasuredEngine
from headrace.engines.openai import OpenAIOptions

SAID = stream(chunk("", role="assistant"), chunk("Hel"), chunk("lo"), chunk(reason="stop"))


class Room:
    def __init__(self):
        self.in_use = 3
        self.heard = []

    def took(self, prompt_tokens, took_s, in_flight):
        assert 0 < took_s < 60
        self.heard.append((prompt_tokens, in_flight))


@contextlib.asynccontextmanager
async def engine_at(server, **options):
    engine = MeasuredEngine(OpenAIOptions(name="m", url=server.url, **options), lambda _: 17)
    engine.room = Room()
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def result(upstream, seen, run):
    """Run one work against a fake upstream; return what the sink saw, the end, the bodies asked, the room."""

    def go(fake, work, **options):
        async def main():
            async with upstream(fake) as server, engine_at(server, **options) as engine:
                sink = seen()
                engine.stream_infer(work, sink)
                return sink, await sink.over, fake.asked, engine.room

        return run(main())

    return go


def test_the_first_token_is_told_once_with_what_was_there_when_its_run_began(result):
    sink, outcome, _, room = result(Fake(SAID), Work(chat()))
    assert sink.all == [Delta("Hel"), Delta("lo")]
    assert outcome.reasons == ("stop",)
    assert room.heard == [(17, 3)]


def test_it_asks_for_a_stream_also_where_nobody_reads_along(result):
    said = stream(
        {"prompt_token_ids": [7, 8, 9]} | chunk("", role="assistant"),
        chunk("Hel"), chunk("lo"), chunk(reason="length"),
    )  # fmt: skip
    sink, outcome, asked, room = result(Fake(said), Work(chat(), live=False), dialect="vllm")
    assert asked[0]["stream"] is True
    assert (sink.batches, sink.prefills) == ([[Delta("Hello")]], [])
    assert outcome.reasons == ("length",)
    assert room.heard == [(17, 3)]


def test_an_answer_without_a_word_is_measured_by_its_end(result):
    _, outcome, _, room = result(Fake(stream(chunk(reason="stop"))), Work(chat()))
    assert outcome.reasons == ("stop",)
    assert room.heard == [(17, 3)]


def test_what_fails_or_goes_on_says_nothing(result):
    refusal = http(json.dumps({"error": {"message": "slow down"}}).encode(), 429)
    _, error, _, room = result(Fake(refusal), Work(chat()))
    assert isinstance(error, HeadraceError)
    assert error.code is Code.RATE_LIMITED
    assert room.heard == []
    work = Work(chat(), (Prefix("He", (), 1),))
    sink, _, _, room = result(Fake(SAID), work, dialect="vllm")
    assert sink.text() == "Hello"
    assert room.heard == []


def test_its_slots_are_what_it_says_or_unknown(upstream, run):
    async def main():
        fake = Fake(b"", paths={b"/props": http(b'{"total_slots":2}')})
        async with upstream(fake) as server:
            async with engine_at(server, dialect="llama", asks_slots=True) as engine:
                assert engine.info().slots == 2
            async with engine_at(server, asks_slots=True, slots=9) as engine:
                assert engine.info().slots == 0

    run(main())


def test_several_run_at_once_though_nobody_knows_how_many_can(upstream, run):
    async def main():
        async with upstream(Fake(SAID)) as server, engine_at(server) as engine:
            answers = await engine.batch_infer([Work(chat()), Work(chat())])
            assert [outcome.reasons for _, outcome in answers] == [("stop",)] * 2

    run(main())


def test_cancel_closes_the_connection_and_nothing_more_is_told(upstream, run, seen):
    begun = asyncio.Event()

    async def silent(reader, writer):
        begun.set()
        await reader.read()
        raise ConnectionResetError

    async def main():
        async with upstream(Fake(silent)) as server, engine_at(server) as engine:
            sink = seen()
            under_way = engine.stream_infer(Work(chat()), sink)
            await begun.wait()
            under_way.cancel()
            under_way.cancel()
            await server.gone.get()
            assert not sink.over.done()
            assert engine.room.heard == []

    run(main())


def test_a_run_that_is_over_leaves_no_cycle(upstream, run, seen):
    async def main():
        async with upstream(Fake(SAID)) as server, engine_at(server) as engine:
            sink = seen()
            engine.stream_infer(Work(chat()), sink)
            await sink.over
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    sink = seen()
                    engine.stream_infer(Work(chat(), live=False), sink)
                    await sink.over
                    del sink
                await asyncio.sleep(0)
                left = [one for one in gc.get_objects() if type(one).__name__ == "MeasuredRun"]
                assert left == []
            finally:
                gc.enable()

    run(main())
