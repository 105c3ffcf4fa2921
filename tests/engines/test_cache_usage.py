from __future__ import annotations

import os

import msgspec
import pytest

from headrace.domain.request import Request, Sampling
from headrace.engines.cache_usage import share_in_use
from headrace.engines.engine import Work
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_options import LlamaOptions


def slot(tokens: int, busy: bool) -> dict[str, object]:
    return {"id": 1, "n_ctx": 100, "is_processing": busy, "n_prompt_tokens": tokens}


@pytest.mark.parametrize(
    ("slots", "share"),
    [
        ([], 0.0),
        ([{"id": 0, "n_ctx": 100, "is_processing": False}], 0.0),
        ([slot(50, True), slot(0, False)], 0.25),
        ([slot(50, True), slot(70, False)], 0.25),
        ([slot(50, True), slot(70, True)], 0.6),
        ([slot(101, True)], 1.0),
    ],
)
def test_what_runs_counts_and_what_is_kept_for_later_does_not(slots, share):
    assert share_in_use(msgspec.json.encode(slots)) == share


def test_a_real_run_fills_the_cache_and_its_end_frees_it(run, embedded_model, seen, tmp_path):
    async def main():
        options = LlamaOptions(
            name="m", model_path=embedded_model.path, state=str(tmp_path), slots=2, context=512
        )
        engine = LlamaEngine(options, dict(os.environ), 2)
        try:
            await engine.load()
            assert await engine.cache_usage() == 0.0
            sink = seen()
            request = Request(
                "m",
                "completion",
                prompts=("one two three four",),
                sampling=Sampling(max_tokens=400, ignore_eos=True),
            )
            under_way = engine.stream_infer(Work(request), sink)
            await sink.first.wait()
            usage = await engine.cache_usage()
            assert 4 / 1024 <= usage < 410 / 1024
            assert await engine.cache_usage() >= usage
            under_way.cancel()
            while await engine.cache_usage():
                """It notices between two of its steps."""
        finally:
            await engine.close()

    run(main())
