"""``EventSource`` in a real browser, on a page of another origin, whose server is killed in mid-answer."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

PAGE = Path(__file__).with_name("page.html")
COUNT = [f"{number} " for number in range(1, 41)]
WAIT_S = 40
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Web:
    """Serves the page; ``told`` has what it saw."""

    def __init__(self) -> None:
        self.told: queue.Queue[dict[str, str]] = queue.Queue()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if self.path.startswith("/?") else 404, PAGE.read_bytes())

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                web.told.put(json.loads(self.rfile.read(length)))
                self.answer(204, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """``browse(url)`` opens a browser there."""
    started = []

    def browse(url: str) -> None:
        command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", url]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, **quiet))

    yield browse
    for process in started:
        process.terminate()
        process.wait(20)


KEY = {"Authorization": "Bearer sk-test"}


def until(web: Web, name: str, seen: list[dict[str, str]], count: int = 1) -> None:
    """Take what the page tells, until it has told this so many times."""
    while count:
        seen.append(web.told.get(timeout=WAIT_S))
        count -= seen[-1]["name"] == name


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_browser_comes_back_by_itself_and_has_every_event_once(
    server: Callable[..., Any], web: Web, browse: Callable[[str], None]
) -> None:
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
    server: Callable[..., Any], web: Web, browse: Callable[[str], None], tmp_path: Path
) -> None:
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
