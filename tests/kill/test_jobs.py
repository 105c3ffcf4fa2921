"""A job whose server is killed with ``kill -9`` at random moments: every row is there once, and none that was finished
was computed again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from headrace.streams.bounds import Bounds
from headrace.streams.sqlite import SqliteStore
from tests.kill.arena import Server

KILLS = int(os.environ.get("KILLS", "5"))
ROWS = 30 * KILLS
LIMIT_S = 40 + 2 * KILLS
MODEL = """
[[models]]
name = "m"
engine = "scripted"
script = "{script}"
slots = 4
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    script = tmp_path / "script.json"
    scripts = [
        {"when": "poison", "refuse": "context_length_exceeded"},
        {"tokens": ["It ", "is", "."], "delay_ms": 10},
    ]
    script.write_text(json.dumps({"scripts": scripts}))
    made = Server(tmp_path, MODEL.format(script=script))
    made.start()
    yield made
    made.kill()


def rows() -> bytes:
    texts = ["poison" if n % 30 == 7 else f"question {n}" for n in range(ROWS)]
    return b"\n".join(
        json.dumps(
            {
                "custom_id": f"row-{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [{"role": "user", "content": text}]},
            }
        ).encode()
        for n, text in enumerate(texts)
    )


def test_no_kill_loses_a_row_or_has_one_twice(server: Server, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print("seed", seed)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=5) as client:
        file = client.files.create(file=("in.jsonl", rows()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.15))  # the moment is what is drawn
            server.kill()
            server.start()
        deadline = time.monotonic() + LIMIT_S
        while batch.status not in ("completed", "failed") and time.monotonic() < deadline:
            time.sleep(0.05)  # a client that polls
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed", (batch, server.text_of())
        answers = read(client, batch.output_file_id)
        errors = read(client, batch.error_file_id)
    poisoned = [f"row-{n}" for n in range(ROWS) if n % 30 == 7]
    assert sorted(row["custom_id"] for row in errors) == sorted(poisoned)
    names = Counter(row["custom_id"] for row in answers + errors)
    assert names == Counter(f"row-{n}" for n in range(ROWS))
    said = {row["response"]["body"]["choices"][0]["message"]["content"] for row in answers}
    assert said == {"It is."}
    server.kill()
    finished = asyncio.run(finished_by_key(tmp_path / "state" / "headrace.db"))
    assert len(finished) == ROWS - len(poisoned)
    assert set(finished.values()) == {1}, [key for key, n in finished.items() if n > 1]


def read(client: openai.OpenAI, id: str | None) -> list[Any]:
    assert id is not None
    return [json.loads(line) for line in client.files.content(id).content.splitlines()]


async def finished_by_key(path: Path) -> Counter[str]:
    """How many generations of each row came to a good end, as the store has it."""
    store = SqliteStore(path, Bounds())
    await store.open()
    found: Counter[str] = Counter()
    for header in await store.list("default", None, 10 * ROWS):
        kept = await store.find(header.id)
        if kept is not None and kept.end == "finish":
            assert header.caller.once is not None
            found[header.caller.once.key] += 1
    await store.close()
    return found
