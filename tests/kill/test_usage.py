"""What was spent of a day is not forgotten by ``kill -9``, nor given back to who was cut off by it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.kill.arena import Server

DAY = 1000
CONFIG = """
[[models]]
name = "m"
engine = "scripted"
script = "{script}"

[[tenants]]
name = "default"

[tenants.limits]
tokens_per_day = {day}
"""
SCRIPTS = [
    {"when": "quick", "tokens": ["a "] * 20, "prompt_tokens": 10},
    {"when": "slow", "tokens": ["a "] * 100, "delay_ms": 20, "prompt_tokens": 10},
]
LEFT = "x-ratelimit-remaining-tokens"


def ask(server: Server, text: str, **fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 100}
    request = urllib.request.Request(
        server.url + "/v1/chat/completions",
        json.dumps(body | fields).encode(),
        {"content-type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=30)


def test_spent_tokens_outlive_the_process(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"scripts": SCRIPTS}))
    server = Server(tmp_path, CONFIG.format(script=script, day=DAY))
    server.start()
    try:
        for spent in (30, 60):
            with ask(server, "quick") as answer:
                assert int(answer.headers[LEFT]) == DAY - spent
        slow = ask(server, "slow", stream=True)
        first = [slow.readline() for _ in range(12)]  # a few events
        seen = sum(line.startswith(b"data:") and b'"content":"a' in line for line in first)
        assert seen >= 2
        server.kill()
        server.start()
        with ask(server, "quick") as answer:
            left = int(answer.headers[LEFT])
        # The two before, this one, and of the slow one its prompt (about) and what it had said.
        assert DAY - 90 - 100 - 20 < left <= DAY - 90 - seen
        large = [{"role": "user", "content": "quick " * 2000}]
        with pytest.raises(urllib.error.HTTPError, match="413"):
            ask(server, "", messages=large)
    finally:
        server.kill()
        slow.close()
