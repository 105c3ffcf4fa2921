"""The command that is printed to try works as it stands in a shell."""

from __future__ import annotations

import json
import shlex

import pytest

from headrace.cli.announce import announcement, curl
from headrace.settings import load


@pytest.mark.parametrize(
    ("flags", "address", "expected"),
    [
        ({}, "127.0.0.1:8000", ["http://127.0.0.1:8000/v1/chat/completions"]),
        (
            {"server.ssl_certfile": __file__},
            "127.0.0.1:1",
            ["https://127.0.0.1:1/v1/chat/completions"],
        ),
        (
            {"server.uds": "/tmp/a b"},
            "/tmp/a b",
            ["--unix-socket", "/tmp/a b", "http://localhost/v1/chat/completions"],
        ),
    ],
)
def test_curl_reaches_the_server_and_asks_its_model(
    flags: dict[str, object], address: str, expected: list[str]
) -> None:
    settings = load(flags=flags, environ={}).settings
    words = shlex.split(curl(settings, address))
    assert [word for word in words if word in expected] == expected
    assert "X-On-Disconnect: continue" in words
    assert not any("Authorization" in word for word in words)
    assert "Authorization: Bearer YOUR_KEY" in shlex.split(curl(settings, address, keyed=True))
    body = json.loads(words[-1])
    assert (body["model"], body["stream"]) == ("smollm2-135m", True)


def test_the_announcement_says_where_the_state_is_and_no_key() -> None:
    flags = {"server.state_dir": "/s", "server.api_key": ("s3cret",)}
    text = announcement(load(flags=flags, environ={}).settings, "127.0.0.1:8000")
    assert "state: /s/headrace.db" in text
    assert "s3cret" not in text
    text = announcement(load(flags={"store.url": "memory:"}, environ={}).settings, "x")
    assert "state: memory only" in text
