"""A server that keeps one log and breaks connections where a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


def chunk(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


class LogServer:
    """Answers every chat with ``log``: (cursor, messages of that event). ``breaks`` holds, connection by
    connection, after how many bytes of the body it is cut (None: not at all)."""

    def __init__(self) -> None:
        self.log: list[tuple[int, list[str]]] = []
        self.breaks: list[int | None] = []
        self.refusals: list[tuple[int, str]] = []
        self.prompt_refusals: list[tuple[int, str]] = []
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.cancelled = threading.Event()
        self.waiting = threading.Event()
        self.hang = False
        log_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                log_server.answer(self)

            def do_POST(self) -> None:
                log_server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def tell(self, *texts: str) -> None:
        """The log of an answer of these tokens, its end included."""
        self.log = [(seq, [chunk(text)]) for seq, text in enumerate(texts, 1)]
        usage = json.dumps({"choices": [], "usage": {"completion_tokens": len(texts)}})
        finish = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.log.append((len(texts) + 1, [finish, usage]))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length") or 0)
        body = json.loads(request.rfile.read(length) or b"null")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.command, request.path, headers, body))
        if request.path == "/v1/models":
            self._whole(request, 200, {"data": [{"id": "tiny"}]})
        elif request.path.endswith("/cancel"):
            self.cancelled.set()
            self._whole(request, 200, {})
        elif request.path.endswith("/prompts"):
            status, message = self.prompt_refusals.pop(0) if self.prompt_refusals else (200, "")
            self._whole(request, status, {"error": {"message": message}})
        elif self.refusals:
            status, message = self.refusals.pop(0)
            self._whole(request, status, {"error": {"message": message}})
        else:
            self._stream(request)

    def body(self, after: int) -> bytes:
        """The stream behind a cursor. Only the last message of an event has its id."""
        text = ": comment\n\nretry: 5000\n\n"
        for seq, messages in self.log:
            if seq > after:
                for message in messages[:-1]:
                    text += f"data: {message}\n\n"
                text += f"id: {seq}\ndata: {messages[-1]}\n\n"
        return (text + ("" if self.hang else "data: [DONE]\n\n")).encode()

    def close(self) -> None:
        self.cancelled.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        after = int(parse_qs(urlsplit(request.path).query).get("after", ["0"])[0])
        request.send_response(200)
        request.send_header("content-type", "text/event-stream; charset=utf-8")
        request.send_header("x-generation-id", "gen_1")
        request.end_headers()
        cut = self.breaks.pop(0) if self.breaks else None
        request.wfile.write(self.body(after)[:cut])
        request.wfile.flush()
        if self.hang:
            self.waiting.set()
            self.cancelled.wait(30)
        request.close_connection = True

    def _whole(self, request: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def server() -> Iterator[LogServer]:
    server = LogServer()
    yield server
    server.close()
