"""``EventSource`` in a real browser, on a page of another origin, whose server is killed in mid-answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

PAGE = Path(__file__).with_name("page.html")
COUNT = [f"{number} " for number in range(1, 41)]
WAIT_S = 40


KEY = {"Authorization": "Bearer sk-test"}


def until(web: Any, name: str, seen: list[dict[str, str]], count: int = 1) -> None:
    """Take what the page tells, until it has told this so many times."""
    while count:
        seen.append(web.told.get(timeout=WAIT_S))
        count -= seen[-1]["name"] == name


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_browser_comes_back_by_itself_and_has_every_event_once(
    server: Callable[..., Any], web: Any, browse: Callable[[str], None]
) -> None:
    web.page = PAGE.read_bytes()
    made = server(f'cors_origin = ["{web.origin}"]')
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
    headers = {"X-On-Disconnect": "continue"}
    chat = f"{made.url}/v1/chat/completions"
    with httpx.stream("POST", chat, json=body, headers=headers) as answer:
        generation = answer.headers["x-generation-id"]
        next(answer.iter_lines())
    events = f"{made.url}/v1/generations/{generation}/events"
    seen: list[dict[str, str]] = []

    browse(f"{web.origin}/?events={quote(events)}")
    until(web, "token", seen, 5)
    made.end()
    until(web, "waits", seen)
    made.start()
    until(web, "closed", seen)

    told = [what for what in seen if "id" in what]
    assert [int(what["id"]) for what in told] == list(range(1, len(told) + 1))
    tokens = [json.loads(what["data"]) for what in told if what["name"] == "token"]
    assert [token["payload"]["text"] for token in tokens] == COUNT
    assert told[-1]["name"] == "finish"
    assert [what["name"] for what in seen].count("open") == 2, "one before the kill, one after it"


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_page_of_another_origin_reads_with_a_token_where_keys_are_needed(
    server: Callable[..., Any], web: Any, browse: Callable[[str], None], tmp_path: Path
) -> None:
    web.page = PAGE.read_bytes()
    made = server(f'cors_origin = ["{web.origin}"]\napi_key = ["sk-test"]')
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
    headers = KEY | {"X-On-Disconnect": "continue"}
    chat = f"{made.url}/v1/chat/completions"
    with httpx.stream("POST", chat, json=body, headers=headers) as answer:
        generation = answer.headers["x-generation-id"]
        next(answer.iter_lines())
    given = httpx.post(f"{made.url}/v1/generations/{generation}/token", headers=KEY).json()
    events = f"{made.url}/v1/generations/{generation}/events?token={given['token']}"
    seen: list[dict[str, str]] = []

    browse(f"{web.origin}/?events={quote(events)}")
    until(web, "token", seen, 5)
    made.end()
    until(web, "waits", seen)
    made.start()  # with the same secret
    until(web, "closed", seen)

    told = [what for what in seen if "id" in what]
    assert [int(what["id"]) for what in told] == list(range(1, len(told) + 1))
    tokens = [json.loads(what["data"]) for what in told if what["name"] == "token"]
    assert [token["payload"]["text"] for token in tokens] == COUNT
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    assert not [file for file in files if given["token"].encode() in file.read_bytes()]
