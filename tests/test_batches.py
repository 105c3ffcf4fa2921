"""Files and batches over the API, as OpenAI's own client drives them."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from headrace.app import App
from tests.whole import Whole

CHAT = "/v1/chat/completions"
TENANTS = """
[[tenants]]
name = "alpha"
keys = ["sk-alpha"]

[[tenants]]
name = "beta"
keys = ["sk-beta"]
"""
BODIES = {
    CHAT: {"model": "echo", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "echo", "prompt": "hi"},
    "/v1/responses": {"model": "echo", "input": "hi"},
}


def rows(count: int, endpoint: str = CHAT, **body: Any) -> bytes:
    return b"\n".join(
        json.dumps(
            {
                "custom_id": f"row-{n}",
                "method": "POST",
                "url": endpoint,
                "body": BODIES[endpoint] | body,
            }
        ).encode()
        for n in range(count)
    )


def client_of(app: App, key: str = "none") -> openai.AsyncOpenAI:
    assert app.front is not None
    return openai.AsyncOpenAI(base_url=f"http://{app.front.address}/v1", api_key=key, max_retries=0)


async def ended(client: openai.AsyncOpenAI, id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            batch = await client.batches.retrieve(id)
            if batch.status in ("completed", "failed", "cancelled", "expired"):
                return batch
            await asyncio.sleep(0.005)


async def begun(client: openai.AsyncOpenAI, data: bytes, endpoint: Any = CHAT, **more: Any) -> Any:
    file = await client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


async def read(client: openai.AsyncOpenAI, id: str) -> list[Any]:
    content = await client.files.content(id)
    return [json.loads(line) for line in content.content.splitlines()]


@pytest.mark.parametrize("endpoint", list(BODIES))
def test_a_batch_is_run_as_openai_s_client_asks(tmp_path: Path, endpoint: str) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running() as app, client_of(app) as client:
            batch = await begun(client, rows(20, endpoint), endpoint, metadata={"for": "a test"})
            assert batch.status in ("validating", "in_progress")
            batch = await ended(client, batch.id)
            assert batch.status == "completed"
            assert batch.metadata == {"for": "a test"}
            assert (batch.request_counts.total, batch.request_counts.completed) == (20, 20)
            assert batch.usage is not None
            assert batch.usage.output_tokens == 40
            assert batch.error_file_id is None
            answers = await read(client, batch.output_file_id)
            assert sorted(row["custom_id"] for row in answers) == sorted(
                f"row-{n}" for n in range(20)
            )
            assert "Hello" in json.dumps(answers[0]["response"]["body"])
            listed = [one.id async for one in client.batches.list()]
            assert listed == [batch.id]
            purposes = [one.purpose async for one in client.files.list()]
            assert sorted(purposes) == ["batch", "batch_output"]

    asyncio.run(main())


def test_bad_rows_are_in_the_error_file_with_the_api_s_own_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running() as app, client_of(app) as client:
            data = b"\n".join(
                [
                    rows(1),
                    rows(1, temperature=99).replace(b"row-0", b"hot"),
                    rows(1, stream=True).replace(b"row-0", b"stream"),
                    rows(1, model="nobody").replace(b"row-0", b"nobody"),
                ]
            )
            batch = await ended(client, (await begun(client, data)).id)
            assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
            errors = {row["custom_id"]: row for row in await read(client, batch.error_file_id)}
            codes = {
                name: (row["response"]["status_code"], row["response"]["body"]["error"]["code"])
                for name, row in errors.items()
            }
            assert codes == {
                "hot": (400, "invalid_request"),
                "stream": (400, "unsupported_option"),
                "nobody": (404, "model_not_found"),
            }

    asyncio.run(main())


def test_a_malformed_line_fails_the_batch_by_its_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running() as app, client_of(app) as client:
            batch = await ended(client, (await begun(client, rows(3) + b"\n{oops")).id)
            assert batch.status == "failed"
            assert batch.errors is not None
            assert batch.errors.data is not None
            assert [(one.code, one.line) for one in batch.errors.data] == [("invalid_json_line", 4)]

    asyncio.run(main())


def test_a_batch_is_cancelled_with_its_generations(tmp_path: Path) -> None:
    async def main() -> None:
        data = rows(1, messages=[{"role": "user", "content": "hang"}])
        async with Whole(tmp_path).running() as app, client_of(app) as client:
            batch = await begun(client, data)
            async with asyncio.timeout(20):
                while not app.service.busy:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.005)
            await client.batches.cancel(batch.id)
            batch = await ended(client, batch.id)
            assert batch.status == "cancelled"
            (row,) = await read(client, batch.error_file_id)
            assert row["error"]["code"] == "batch_cancelled"
            assert not app.service.busy
            with pytest.raises(openai.ConflictError):
                await client.batches.cancel(batch.id)

    asyncio.run(main())


def test_another_tenant_s_files_and_batches_are_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Whole(tmp_path).running(more=TENANTS) as app,
            client_of(app, "sk-alpha") as alpha,
            client_of(app, "sk-beta") as beta,
        ):
            batch = await ended(alpha, (await begun(alpha, rows(2))).id)
            input_id, output_id = batch.input_file_id, batch.output_file_id
            for asked in (
                beta.batches.retrieve(batch.id),
                beta.batches.cancel(batch.id),
                beta.files.retrieve(input_id),
                beta.files.content(output_id),
                beta.files.delete(input_id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await asked
            with pytest.raises(openai.BadRequestError, match="input_file_id"):
                await beta.batches.create(
                    input_file_id=input_id, endpoint="/v1/completions", completion_window="24h"
                )
            assert [one async for one in beta.batches.list()] == []
            assert [one async for one in beta.files.list()] == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"metadata": {"x" * 65: "y"}}, "metadata"),
        ({"metadata": {str(n): "y" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"priority": 3}, "priority"),
    ],
)
def test_a_mistake_in_a_batch_names_its_field(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running() as app, client_of(app) as client:
            file = await client.files.create(file=("in.jsonl", rows(1)), purpose="batch")
            body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
            with pytest.raises(openai.BadRequestError) as refused:
                await client.post("/batches", body=body | change, cast_to=httpx.Response)
            assert field in str(refused.value.param)

    asyncio.run(main())


def test_a_mistake_in_an_upload_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        server = "\n[jobs]\nmax_file_bytes = 2000000\n"
        async with Whole(tmp_path).running(more=server) as app:
            assert app.front is not None
            url = f"http://{app.front.address}/v1/files"
            async with httpx.AsyncClient(timeout=20) as client:
                file = {"file": ("in.jsonl", b"x")}
                purpose = {"purpose": "batch"}
                asked: list[tuple[dict[str, Any], int]] = [
                    ({"files": file}, 400),
                    ({"files": file, "data": {"purpose": "fine-tune"}}, 400),
                    ({"files": {"other": b"x"}, "data": purpose}, 400),
                    ({"json": {}}, 415),
                    (
                        {
                            "content": b"--e\r\n",
                            "headers": {"content-type": "multipart/form-data; boundary=e"},
                        },
                        400,
                    ),
                    ({"files": {"file": ("in", b"x" * 2_000_001)}, "data": purpose}, 413),
                    ({"files": file, "data": purpose | {"expires_after[seconds]": "4000"}}, 400),
                    (
                        {
                            "files": file,
                            "data": purpose
                            | {
                                "expires_after[anchor]": "created_at",
                                "expires_after[seconds]": "4",
                            },
                        },
                        400,
                    ),
                ]
                for request, status in asked:
                    answer = await client.post(url, **request)
                    assert answer.status_code == status, (request, answer.text)
                assert (await client.get(url)).json()["data"] == []
            assert not list((tmp_path / "jobs" / "files").iterdir())

    asyncio.run(main())


def test_a_file_longer_than_any_body_is_streamed_in_and_out(tmp_path: Path) -> None:
    """Over HTTP/1.1 with a length and in chunks, and by the SDK."""

    async def main() -> None:
        data = b"".join(b"%07d\n" % n for n in range(400_000))
        server = "max_body_bytes = 1000000"
        async with Whole(tmp_path).running(server) as app, client_of(app) as client:
            file = await client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
            assert file.bytes == len(data)
            assert (await client.files.content(file.id)).content == data

            head = b'--e\r\ncontent-disposition: form-data; name="%b"\r\n\r\n'

            async def pieces() -> Any:
                yield head % b"file"
                for at in range(0, len(data), 50_000):
                    yield data[at : at + 50_000]
                yield b"\r\n" + head % b"purpose" + b"batch\r\n--e--"

            assert app.front is not None
            async with httpx.AsyncClient(base_url=f"http://{app.front.address}") as raw:
                kind = {"content-type": "multipart/form-data; boundary=e"}
                answer = await raw.post("/v1/files", content=pieces(), headers=kind)
                assert answer.status_code == 200, answer.text
                assert answer.json()["bytes"] == len(data)
                again = await raw.get("/v1/models")  # on the same connection
                assert again.status_code == 200

    asyncio.run(main())


def test_where_nothing_is_kept_there_are_no_files(tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        whole.write()
        text = whole.file.read_text().replace('"sqlite:"', '"memory:"')

        def write(server: str = "", more: str = "") -> Path:
            whole.file.write_text(text)
            return whole.file

        whole.write = write  # type: ignore[method-assign]
        async with whole.running() as app, client_of(app) as client:
            with pytest.raises(openai.NotFoundError, match="keeps nothing"):
                await client.files.list()
            with pytest.raises(openai.NotFoundError, match="keeps nothing"):
                await begun(client, rows(1))

    asyncio.run(main())


def test_a_job_goes_on_after_the_server_was_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        data = (
            rows(5)
            + b"\n"
            + rows(1, messages=[{"role": "user", "content": "slowly"}]).replace(b"row-0", b"slow")
        )
        async with whole.running() as app, client_of(app) as client:
            batch = await begun(client, data)
            async with asyncio.timeout(20):
                completed = 0
                while completed < 5:
                    completed = (await client.batches.retrieve(batch.id)).request_counts.completed
        async with whole.running() as app, client_of(app) as client:
            batch = await ended(client, batch.id)
            answers = await read(client, batch.output_file_id)
            names = [row["custom_id"] for row in answers]
            assert sorted(names) == [*(f"row-{n}" for n in range(5)), "slow"]
            (slow,) = [row for row in answers if row["custom_id"] == "slow"]
            said = slow["response"]["body"]["choices"][0]["message"]["content"]
            assert said == "a " * 100

    asyncio.run(main())


def test_a_job_stands_still_while_what_it_was_answered_cannot_be_kept(tmp_path: Path) -> None:
    """What waits for the database is in memory: a full journal file of it, and no more for who is in no hurry."""
    forbidden = [
        f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(FAIL, 'no'); END"
        for table in ("segments", "packs")
    ]

    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running() as app, client_of(app) as client:
            with closing(sqlite3.connect(app.settings.database_path or "")) as other:
                other.executescript(";".join(forbidden))
            text = "hi " * 40_000  # 150 of them are more than one file of the journal
            batch = await begun(client, rows(150, messages=[{"role": "user", "content": text}]))
            async with asyncio.timeout(20):
                while (now := await client.batches.retrieve(batch.id)).paused is None:  # type: ignore[attr-defined]
                    assert now.status in ("validating", "in_progress")
            assert "cannot be written" in now.paused  # type: ignore[attr-defined]
            with closing(sqlite3.connect(app.settings.database_path or "")) as other:
                other.executescript("DROP TRIGGER no_segments; DROP TRIGGER no_packs")

    asyncio.run(main())
