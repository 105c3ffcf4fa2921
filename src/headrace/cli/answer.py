"""One answer read to its end, whatever happens to the connection or the server in between.

The server keeps every generation as a numbered log; ``X-On-Disconnect: grace=…`` lets it go on
without us for as long as we try to come back. After a break we read on behind the last number we have,
so each token comes once.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from headrace.cli.connection import Server
from headrace.cli.sse import Message, messages
from headrace.domain.errors import Code, HeadraceError

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 4.0
PATIENCE_S = 180.0
"""How long a server may be away before the answer is given up."""


class Answer:
    """The answer to a chat request. ``tokens`` is 0 until the server has said how many there
    were; ``over``: nothing more will come. ``lost`` is told why a connection broke, ``prompted`` the role and
    the text of each message that was added, in its place between the pieces."""

    def __init__(
        self,
        server: Server,
        body: dict[str, Any],
        lost: Callable[[str], None],
        prompted: Callable[[str, str], None] | None = None,
    ) -> None:
        self._server = server
        self._body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        self._lost = lost
        self._prompted = prompted
        self._begun = threading.Event()
        self._once = uuid.uuid4().hex
        self._generation: str | None = None
        self._cursor = 0
        self.over = False
        self.tokens = 0

    def pieces(self) -> Iterator[str]:
        """The text as it comes, every token once. Raises :class:`HeadraceError` if the answer failed or
        its server stayed away."""
        wait, given_up = FIRST_WAIT_S, time.monotonic() + PATIENCE_S
        while True:
            before = self._cursor
            try:
                yield from self._read(self._open())
                why = "the stream broke off"
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
            if self.over:
                return
            if self._cursor > before:
                wait, given_up = FIRST_WAIT_S, time.monotonic() + PATIENCE_S
            if time.monotonic() > given_up:
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"{self._server.url}: {why}")
            self._lost(why)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def prompt(self, text: str) -> bool:
        """Add a user's message to the answer while it comes; False if it is over, or its server is away. From
        any thread. Raises :class:`HeadraceError` if it cannot be added."""
        while not self._begun.wait(0.1):
            if self.over:
                return False
        path = f"/v1/generations/{self._generation}/prompts"
        try:
            self._server.request("POST", path, {"role": "user", "content": text}).read()
        except (OSError, http.client.HTTPException):
            return False
        except HeadraceError as error:
            if error.code is Code.CONFLICT:
                return False
            raise
        return True

    def cancel(self) -> None:
        """Tell the server that nobody wants the rest."""
        if self._generation:
            try:
                self._server.request("POST", f"/v1/generations/{self._generation}/cancel").read()
            except (OSError, http.client.HTTPException, HeadraceError):
                return  # it ended by itself, or its server did

    def _open(self) -> http.client.HTTPResponse:
        if self._generation:
            path = f"/v1/generations/{self._generation}/events?format=openai&after={self._cursor}"
            return self._server.request("GET", path, headers={"accept": "text/event-stream"})
        leaving = f"grace={PATIENCE_S:g}"  # nobody asks for it after that
        headers = {"x-on-disconnect": leaving, "idempotency-key": self._once}
        if self._prompted is not None:
            headers["x-stream-events"] = "token,prompt"
        response = self._server.request("POST", "/v1/chat/completions", self._body, headers)
        self._generation = response.headers.get("x-generation-id")
        if self._generation:
            self._begun.set()
        return response

    def _read(self, response: http.client.HTTPResponse) -> Iterator[str]:
        """The text behind the cursor. What one event made of several messages counts from its last
        message on, the one with the id: only then will it not be sent again."""
        with response:
            if response.status == http.client.NO_CONTENT:
                self.over = True
            held: list[str] = []
            for message in messages(response):
                if message.data == "[DONE]":
                    self.over = True
                    break
                held.append(self._text(message))
                if message.id is not None and message.id.isdecimal():
                    self._cursor = int(message.id)
                    yield "".join(held)
                    held.clear()
            if self.over:
                yield "".join(held)

    def _text(self, message: Message) -> str:
        chunk = json.loads(message.data)
        if chunk.get("error"):
            self.over = True
            raise HeadraceError(
                Code.ENGINE_FAILED, str(chunk["error"].get("message", chunk["error"]))
            )
        added = chunk.get("headrace", {})
        if added.get("type") == "prompt" and self._prompted is not None:
            self._prompted(added["payload"]["role"], added["payload"]["content"])
        if chunk.get("usage"):
            self.tokens = chunk["usage"].get("completion_tokens", 0)
        return "".join(
            choice.get("delta", {}).get("content") or "" for choice in chunk.get("choices", ())
        )
