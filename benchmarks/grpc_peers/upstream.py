"""The engine, as whoever writes an intermediary would read it: OpenAI's completions through aiohttp."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp


class Upstream:
    """An engine behind HTTP; made on the event loop."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/completions"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def texts(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        """The pieces of an answer as they come."""
        body = {"model": "mock", "prompt": prompt, "max_tokens": max_tokens, "stream": True}
        async with self._session.post(self._url, json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    text: str = json.loads(line[6:])["choices"][0]["text"]
                    if text:
                        yield text
