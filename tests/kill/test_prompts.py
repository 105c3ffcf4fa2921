"""Prompts in mid-stream outlive ``kill -9`` of the server and of its engine."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from headrace.settings.model import EMBEDDED
from tests.kill.arena import Server
from tests.kill.moments import engine_of

MAX_TOKENS = 90
WORDS = [f"{number} " for number in range(MAX_TOKENS)]


class Talk:
    """One generation of a server that is killed."""

    def __init__(self, server: Server, model: str) -> None:
        self.server = server
        self.told: list[str] = []
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "Count to a hundred."}],
            "max_tokens": MAX_TOKENS,
            "stream": True,
        }
        if model != "m":
            body["ignore_eos"] = True
        headers = {"x-on-disconnect": "continue"}
        with self.post("/v1/chat/completions", body, headers) as response:
            self.generation = response.headers["x-generation-id"]

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            self.server.url + path,
            json.dumps(body).encode(),
            {"content-type": "application/json", **(headers or {})},
        )
        return urllib.request.urlopen(request, timeout=60)

    def follow(self, tokens: int | None) -> list[dict[str, Any]]:
        """The log from its beginning, until it has so many tokens; None: until its end."""
        path = f"{self.server.url}/v1/generations/{self.generation}/events"
        seen: list[dict[str, Any]] = []
        with urllib.request.urlopen(path, timeout=120) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    seen.append(json.loads(line[6:]))
                    if tokens is not None and len(text_of(seen)) >= tokens:
                        break
        return seen

    def prompt(self, text: str) -> None:
        self.told.append(text)
        path = f"/v1/generations/{self.generation}/prompts"
        self.post(path, {"role": "user", "content": text}).close()

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def kill_engine(self) -> None:
        engine = engine_of(self.server.pid)
        if engine:
            os.kill(engine, signal.SIGKILL)


def text_of(log: list[dict[str, Any]]) -> list[str]:
    return [event["payload"]["text"] for event in log if event["type"] == "token"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["m", EMBEDDED.name])
def test_prompts_and_what_was_said_between_them_outlive_every_kill(
    tmp_path: Path, model: str
) -> None:
    script = {"tokens": WORDS, "delay_ms": 10}
    (tmp_path / "script.json").write_text(json.dumps({"slots": 2, "scripts": [script]}))
    config = f'[[models]]\nname = "m"\nengine = "scripted"\nscript = "{tmp_path}/script.json"\n'
    if model != "m":
        config = (
            f'[[models]]\nname = "{EMBEDDED.name}"\nsource = "{EMBEDDED.source}"\n'
            f'sha256 = "{EMBEDDED.sha256}"\nformat = "{EMBEDDED.format}"\nslots = 2\n'
        )
    server = Server(tmp_path, config)
    server.start()
    try:
        while not is_ready(server):
            time.sleep(0.05)
        talk = Talk(server, model)
        talk.follow(10)
        talk.prompt("one")
        known = talk.follow(20)
        talk.kill_engine()
        talk.prompt("two")
        talk.follow(35)
        talk.prompt("three")
        talk.kill_server()
        talk.prompt("four")
        talk.follow(50)
        talk.kill_server()
        talk.follow(60)
        log = talk.follow(None)
    finally:
        server.kill()
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    assert log[: len(known)] == known
    prompts = [event["payload"]["content"] for event in log if event["type"] == "prompt"]
    assert prompts == ["one", "two", "three", "four"]
    ends = [event["type"] for event in log if event["type"] in ("finish", "error")]
    assert ends == ["finish"]
    assert log[-1]["payload"]["usage"]["completion_tokens"] == MAX_TOKENS
    if model == "m":
        assert text_of(log) == WORDS


def is_ready(server: Server) -> bool:
    try:
        server.get("/readyz")
    except OSError:
        return False
    return True
