"""Responses and ``kill -9``: one in the background goes on and is read on; what is deleted or was not to be
stored does not come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.kill.arena import Server

COUNT = [f"{number} " for number in range(1, 61)]
MODEL = """
[[models]]
name = "m"
engine = "scripted"
script = "{script}"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    script = tmp_path / "script.json"
    scripts = [{"when": "slowly", "tokens": COUNT, "delay_ms": 40}, {"tokens": ["It ", "is."]}]
    script.write_text(json.dumps({"scripts": scripts}))
    made = Server(tmp_path, MODEL.format(script=script))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    options: Any = {"_strict_response_validation": True, "max_retries": 4}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", **options) as client:
        yield client


def restart(server: Server) -> None:
    server.kill()
    server.start()


def test_a_background_response_is_read_on_after_the_server_was_killed(
    server: Server, client: openai.OpenAI
) -> None:
    stream = client.responses.create(model="m", input="slowly", background=True, stream=True)
    seen = [next(stream) for _ in range(15)]
    server.kill()
    with pytest.raises(openai.APIError):  # the connection breaks
        seen.extend(stream)
    id = seen[0].response.id
    server.start()
    rest = client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
    seen.extend(rest)

    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    said = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert said == COUNT
    assert seen[-1].type == "response.completed"
    whole = list(client.responses.retrieve(id, stream=True))
    assert whole == seen
    assert client.responses.retrieve(id) == seen[-1].response
    restart(server)
    assert list(client.responses.retrieve(id, stream=True)) == seen


def test_what_is_gone_stays_gone(server: Server, client: openai.OpenAI) -> None:
    kept = client.responses.create(model="m", input="Hi.")
    deleted = client.responses.create(model="m", input="Hi.")
    unstored = client.responses.create(model="m", input="Hi.", store=False)
    running = client.responses.create(model="m", input="slowly", background=True)
    client.responses.delete(deleted.id)
    client.responses.delete(running.id)
    for _ in range(2):
        for gone in (deleted, unstored, running):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(gone.id)
            with pytest.raises(openai.BadRequestError):
                client.responses.create(model="m", input="x", previous_response_id=gone.id)
        listed = json.loads(server.get("/v1/generations?limit=100"))["data"]
        ids = {one["id"].removeprefix("gen_") for one in listed}
        assert not {deleted.id[5:], running.id[5:]} & ids
        assert unstored.id[5:] in ids  # some minutes, for who reads on
        assert client.responses.retrieve(kept.id) == kept
        followed = client.responses.create(model="m", input="x", previous_response_id=kept.id)
        assert followed.output_text == "It is."
        restart(server)
    client.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)
