"""Limits on the whole server, with a client that others wrote."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.kill.arena import Server

CONFIG = """
[[models]]
name = "echo"
engine = "scripted"
script = "{script}"

[[tenants]]
name = "default"

[tenants.limits]
requests_per_minute = 60
burst_s = 1.0
tokens_per_minute = 60000
"""


def test_an_sdk_that_comes_again_when_it_was_told_to_is_let_in(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"scripts": [{"tokens": ["Hello"]}]}')
    server = Server(tmp_path, CONFIG.format(script=script))
    server.start()
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            ask = client.with_options(max_retries=1).chat.completions.with_raw_response
            hurried = client.chat.completions
            message = {"role": "user", "content": "Hi"}
            first = ask.create(model="echo", messages=[message])  # type: ignore[list-item]
            assert first.headers["x-ratelimit-remaining-requests"] == "0"
            with pytest.raises(openai.RateLimitError) as refused:
                hurried.create(model="echo", messages=[message])  # type: ignore[list-item]
            assert refused.value.code == "rate_limited"
            assert 0 < int(refused.value.response.headers["retry-after-ms"]) <= 1000
            # It waits as long as it is told to, once, and that is enough.
            second = ask.create(model="echo", messages=[message])  # type: ignore[list-item]
            assert second.retries_taken == 1
            assert second.parse().choices[0].message.content == "Hello"
    finally:
        server.kill()
