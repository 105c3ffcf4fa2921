"""A whole service behind the methods, with one generation that is over and one that never is."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from tests.protocols.grpc.shapes import ENDED, HANGS, RUNNING
from tests.service.house import WORDS, House

from headrace.engines.script import Script
from headrace.front.exchange import Head
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.grpc.services import Services

PROPER = {0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 14, 16}
"""Not UNKNOWN, INTERNAL and DATA_LOSS: those would be our own mistakes."""
MOST_PROMPTS = 100
MESSAGE_BYTES = 4096


class Exchange:
    """One of HTTP without a socket: keeps the answer."""

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.gone = self.arrives = self.has_trailers = False
        self.status = 0
        self.content_type = ""
        self.answer = b""
        self.over = False

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        self.start(status, headers)
        self.answer = body
        self.over = True

    def start(self, status: int, headers: Any) -> None:
        assert not self.status
        self.status = status
        if isinstance(headers, bytes):
            headers = [line.split(b": ", 1) for line in headers.split(b"\r\n") if line]
        self.content_type = dict(headers).get(b"content-type", b"").decode()

    def send(self, data: bytes) -> bool:
        assert self.status
        assert not self.over
        self.answer += data
        return True

    def end(self, trailers: Any = ()) -> None:
        assert self.status
        assert not self.over
        self.over = True

    def abort(self) -> None:
        raise AssertionError("the answer was broken off")

    def leave(self) -> None:
        self.gone = True
        on_gone, self.on_gone, self.on_drain = self.on_gone, None, None
        if on_gone is not None:
            on_gone()


class Place:
    """Its engine says all at once, or, if a prompt asks for that, hangs."""

    def __init__(self) -> None:
        self.house = House(Script(WORDS, when=HANGS, hang_after=2), Script(WORDS), slots=8)
        service = self.house.service
        self.services = Services(service, MESSAGE_BYTES)
        self.streams = self.services.streams
        self.rpcs = self.services.rpcs
        self.ended: Any = None
        self.running: Any = None
        self.api = Api(service, ApiOptions(), more=self.services.wires.routes())

    async def open(self) -> Place:
        await self.house.open()
        await self.refresh()
        return self

    async def refresh(self) -> None:
        """Before each example: what is to be over is there, and what is to run, runs."""
        ended, running = self.ended, self.running
        if ended is None or await self.house.store.find(ended.id) is None:
            self.ended = await self.responded("Hi")
        if running is None or running.ended or len(running.turns) > MOST_PROMPTS:
            if running is not None:
                self.house.service.cancel(running)
            self.running = await self.responded(HANGS)

    async def responded(self, text: str) -> Any:
        """A response in the background."""
        body = json.dumps({"model": "m", "input": text, "background": True}).encode()
        exchange = Exchange(Head("POST", "/v1/responses", "", ()), body)
        self.api.handle(exchange)
        await self.settle()
        return await self.house.service.find(json.loads(exchange.answer)["id"], "default")

    def named(self, data: bytes) -> bytes:
        """With ids that are somebody's."""
        for name, generation in ((ENDED, self.ended), (RUNNING, self.running)):
            data = data.replace(name[4:].encode(), generation.id[4:].encode())
        return data

    async def settle(self) -> None:
        """Until nothing moves any more."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def answer(self, exchange: Exchange) -> Exchange:
        """With what it is answered before its client leaves; then nothing may be left of it."""
        self.api.handle(exchange)
        await self.settle()
        if not exchange.over:
            assert self.house.service.busy
        exchange.leave()
        await self.judge()
        count = sys.getrefcount(exchange)  # by us, and by who counts
        assert count == 2, f"somebody keeps the call: {count}"
        return exchange

    async def judge(self) -> None:
        """Nothing may be left of those who asked, but what is to outlive them."""
        await self.settle()
        service = self.house.service
        for log in self.house.hub.running():
            if log.id != self.running.id:
                assert log.header.caller.leaving.durable, "it runs for nobody"
                service.cancel(await service.find(log.id, "default"))
        await self.settle()
        runs = not self.running.ended
        assert (len(self.streams), self.house.in_use, service.busy) == (0, runs, runs)
        assert service.abort("t", "default") == 0
