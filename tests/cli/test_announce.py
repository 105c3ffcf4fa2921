"""The command that is printed to try works as it stands in a shell."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

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


ONNX = """
[[models]]
name = "a/b"
engine = "onnx"
source = "file:/m.onnx"
"""
EMBEDDING = """
[models.embedding]
enabled = true
tokenizer = "file:/tokenizer.json"
"""
CHAT = """
[[models]]
name = "chat"
engine = "scripted"
"""


@pytest.mark.parametrize(
    ("text", "path", "body"),
    [
        (ONNX, "/v2/models/a%2Fb", None),
        (ONNX + EMBEDDING, "/v1/embeddings", {"model": "a/b", "input": "Why is the sky blue?"}),
        (ONNX + EMBEDDING + CHAT, "/v1/chat/completions", "chat"),
    ],
)
def test_what_is_to_be_tried_is_what_is_served(
    tmp_path: Path, text: str, path: str, body: object
) -> None:
    file = tmp_path / "h.toml"
    file.write_text(text)
    words = shlex.split(curl(load(file, environ={}).settings, "x:1"), comments=True)
    assert f"http://x:1{path}" in words
    if body is None:
        assert "-d" not in words
    else:
        asked = json.loads(words[-1])
        assert body in (asked, asked["model"])
