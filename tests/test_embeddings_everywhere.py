"""Embeddings of the whole server: engines that compute them, and upstreams whose are passed on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from headrace.app import App
from headrace.settings.model import EMBEDDED
from tests.whole import Whole

UPSTREAM = """
[[models]]
name = "passed-on"
engine = "openai"
[[models.replicas]]
url = "{url}/v1"
name = "echo"
"""
LLAMA = f"""
[[models]]
name = "llama"
source = "{EMBEDDED.source}"
sha256 = "{EMBEDDED.sha256}"
format = "q8_0"
slots = 4
context = 512
[models.embedding]
enabled = true
pooling = "mean"
max_tokens = 256
truncate = true
"""


def client_of(app: App) -> openai.AsyncOpenAI:
    assert app.front is not None
    url = f"http://127.0.0.1:{app.front.port}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def ready(app: App, model: str) -> None:
    """Until its engine is loaded."""
    loaded = asyncio.Event()
    app.topics.subscribe("model", lambda news: loaded.set())
    while not app.service.model(model).ready:
        loaded.clear()
        await loaded.wait()


def test_an_upstreams_are_passed_on(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        first, second = Whole(tmp_path / "a"), Whole(tmp_path / "b")
        async with first.running() as upstream, client_of(upstream) as direct:
            more = UPSTREAM.format(url=str(direct.base_url).removesuffix("/v1/"))
            async with second.running(more=more) as app, client_of(app) as client:
                await ready(app, "passed-on")
                said = await direct.embeddings.create(model="echo", input=["one", "two words"])
                found = await client.embeddings.create(
                    model="passed-on", input=["one", "two words"]
                )
                assert [one.embedding for one in found.data] == [one.embedding for one in said.data]
                assert found.usage.prompt_tokens == 3
                assert found.model == "passed-on"
                with pytest.raises(openai.NotFoundError):
                    await client.embeddings.create(model="other", input="one")

    run(main())


def test_llama_gives_them_and_still_generates(
    run: Any, tmp_path: Path, embedded_model: Any
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(more=LLAMA) as app, client_of(app) as client:
            await ready(app, "llama")

            async def embed(*texts: Any, **more: Any) -> list[list[float]]:
                found = await client.embeddings.create(model="llama", input=list(texts), **more)
                return [one.embedding for one in found.data]

            texts = ["A cat sits on the mat.", "A kitten sat on a rug.", "Interest rates rise."]
            cat, kitten, rates = await embed(*texts)
            assert sum(x * x for x in cat) == pytest.approx(1.0, abs=1e-4)
            assert dot(cat, kitten) > dot(cat, rates)
            # Together, alone, as tokens: the same but for rounding.
            tokens = (await app.service.tokenize("llama", texts[0], special=True, pieces=False)).ids
            for same in (*await embed(texts[0]), *await embed(list(tokens))):
                assert dot(cat, same) > 0.999
            (short,) = await embed(texts[0], dimensions=64)
            assert len(short) == 64
            with pytest.raises(openai.BadRequestError) as refused:
                await embed("ok", "word " * 300)
            assert (refused.value.code, refused.value.param) == (
                "context_length_exceeded",
                "input[1]",
            )
            with pytest.raises(openai.BadRequestError, match="token"):
                await embed([999_999])
            answer, found = await asyncio.gather(
                client.chat.completions.create(
                    model="llama",
                    messages=[{"role": "user", "content": "Say hello."}],
                    max_tokens=5,
                    temperature=0,
                ),
                embed(*texts * 8),
            )
            assert answer.choices[0].message.content
            assert len(found) == 24

    run(main())


def test_a_llama_without_the_setting_says_who_can_change_that(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        more = LLAMA.partition("[models.embedding]")[0]
        async with Whole(tmp_path).running(more=more) as app, client_of(app) as client:
            with pytest.raises(openai.BadRequestError, match=r"models\.embedding") as refused:
                await client.embeddings.create(model="llama", input="one")
            assert refused.value.code == "unsupported_option"

    run(main())


def dot(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))
