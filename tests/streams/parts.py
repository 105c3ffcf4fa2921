"""What the tests of this room share: readers, events, headers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Event, Finish, Progress, Token, Usage
from headrace.domain.request import CONTINUE, Caller, Leaving, Message, Request
from headrace.streams.store import LogHeader, Store


class Collector:
    """A reader that remembers. Takes ``room`` events, then says enough until it is given more room."""

    def __init__(self, room: int | None = None) -> None:
        self.seen: list[Event] = []
        self.calls = 0
        self.error: HeadraceError | None = None
        self.room = room
        self._news = asyncio.Event()

    def events(self, events: Sequence[Event]) -> bool:
        assert self.error is None
        self.calls += 1
        self.seen.extend(events)
        self._news.set()
        if self.room is not None:
            self.room -= len(events)
        return self.room is None or self.room > 0

    def lost(self, error: HeadraceError) -> None:
        assert self.error is None
        self.error = error
        self._news.set()

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.seen]

    async def until(self, seq: int) -> list[Event]:
        """All events once the one with ``seq`` is here."""
        while (self.seen[-1].seq if self.seen else 0) < seq:
            assert self.error is None, self.error
            await self._wait()
        return self.seen

    async def until_lost(self) -> HeadraceError:
        while self.error is None:
            await self._wait()
        return self.error

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


class ManualClock:
    """Unix seconds that only move by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def header(
    id: str,
    *,
    tenant: str = "default",
    session_id: str | None = None,
    leaving: Leaving = CONTINUE,
    created: float = 1_795_346_282.0,
    keep: bool = True,
) -> LogHeader:
    request = Request("m", "chat", (Message("user", "Hello?"),), keep=keep)
    return LogHeader(
        id, created, "m", request, Caller(tenant, session_id=session_id, leaving=leaving)
    )


def token(seq: int, text: str = "") -> Token:
    return Token(seq, 1_795_346_282.0 + seq, text or f" word{seq}")


def tokens(first: int, count: int, text: str = "") -> list[Event]:
    return [token(seq, text) for seq in range(first, first + count)]


def finish(seq: int) -> Finish:
    return Finish(seq, 1_795_346_282.0 + seq, ("stop",), Usage(3, seq))


def error(seq: int) -> Error:
    return Error(seq, 1_795_346_282.0 + seq, "interrupted", "it was", True)


def progress(seq: int) -> Progress:
    return Progress(seq, 1_795_346_282.0 + seq, "queued", 1)


async def flushed() -> None:
    """What was appended before is visible after this: the store writes in the next iteration."""
    for _ in range(3):
        await asyncio.sleep(0)


async def read_all(store: Store, id: str) -> list[Event]:
    """All stored events of a log."""
    events: list[Event] = []
    while more := await store.read(id, events[-1].seq if events else 0, 10_000):
        events.extend(more)
    return events
