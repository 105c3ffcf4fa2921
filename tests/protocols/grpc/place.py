"""A whole service behind the methods, with one generation that is over and one that never is."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.protocols.grpc.shapes import ENDED, HANGS, RUNNING
from tests.service.house import WORDS, House

from headrace.domain.request import CONTINUE
from headrace.engines.script import Script
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.grpc.services import Services

PROPER = {0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 14, 16}
"""Not UNKNOWN, INTERNAL and DATA_LOSS: those would be our own mistakes."""
MOST_PROMPTS = 100
MESSAGE_BYTES = 4096


class Place:
    """Its engine says all at once, or, if a prompt asks for that, hangs."""

    def __init__(self) -> None:
        self.house = House(Script(WORDS, when=HANGS, hang_after=2), Script(WORDS), slots=8)
        service = self.house.service
        self.services = Services(service, MESSAGE_BYTES)
        self.streams = self.services.streams
        self.rpcs = self.services.rpcs
        self.api = Api(service, ApiOptions(), more=self.services.wires.routes())

    async def open(self) -> Place:
        await self.house.open()
        self.ended = self.house.ask(leaving=CONTINUE).id
        await self.refresh()
        return self

    async def refresh(self) -> None:
        """Before each example: what is to run, runs."""
        running: Any = getattr(self, "running", None)
        if running is None or running.ended or len(running.turns) > MOST_PROMPTS:
            if running is not None:
                self.house.service.cancel(running)
            self.running: Any = self.house.ask(HANGS, leaving=CONTINUE)
            await self.settle()

    def named(self, data: bytes) -> bytes:
        """With ids that are somebody's."""
        data = data.replace(ENDED.encode(), self.ended.encode())
        return data.replace(RUNNING.encode(), self.running.id.encode())

    async def settle(self) -> None:
        """Until nothing moves any more."""
        for _ in range(12):
            await asyncio.sleep(0)

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
