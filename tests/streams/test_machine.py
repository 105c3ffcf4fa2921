"""A walk over everything a store and its readers can go through, against a model of plain lists."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from headrace.domain.delta import Delta
from headrace.domain.event import Event
from headrace.streams.hold import Hold
from headrace.streams.hub import Hub
from headrace.streams.log import Log
from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import Collector, error, finish, flushed, header, read_all, token


class Told:
    """The model of one log: what was appended, and what of it somebody may have seen."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.events: list[Event] = []
        self.raw: list[str] = []
        self.visible = 0
        self.ended = False


class Following:
    """A reader and its hold on the log that was its own when it attached."""

    def __init__(self, told: Told, reader: Collector, hold: Hold) -> None:
        self.told = told
        self.reader = reader
        self.hold = hold
        self.closed = False


class StoreMachine(RuleBasedStateMachine):
    logs = Bundle("logs")
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.told: dict[str, Told] = {}
        self.following: list[Following] = []
        self.count = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(10):
                return await coroutine

        return self.runner.run(limited())

    @initialize()
    def open(self) -> None:
        async def open_it() -> None:
            self.store = SqliteStore(self.folder / "h.db", journal_bytes=3000)
            recovered = {one.header.id: one for one in await self.store.open()}
            self.hub = Hub(self.store)
            running = {told.log.id for told in self.told.values() if not told.ended}
            assert set(recovered) == {id for id in running if self.told[id].events}
            for told in self.told.values():
                id = told.log.id
                if id in recovered:
                    assert recovered[id].events == told.events
                    assert [delta.text for delta in recovered[id].raw] == told.raw
                    told.log = self.hub.adopt(recovered[id].header, recovered[id].events)
                elif told.ended:
                    assert await read_all(self.store, id) == told.events
                    told.log = await self.hub.find(id)

        self.run(open_it())

    @rule(target=logs)
    def create(self) -> str:
        self.count += 1
        id = f"gen_{self.count}"

        async def create() -> None:
            self.told[id] = Told(self.hub.create(header(id)))

        self.run(create())
        return id

    @rule(
        id=logs,
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
        end=st.sampled_from([None, None, None, "finish", "error"]),
        raw=st.booleans(),
        text=st.sampled_from(["", "x" * 500, "long " * 400]),
    )
    def append(self, id: str, sizes: list[int], end: str | None, raw: bool, text: str) -> None:
        told = self.told.get(id)
        if told is None or told.ended:
            return

        async def append() -> None:
            assert told is not None
            for size in sizes:
                first = len(told.events) + 1
                events: list[Event] = [token(seq, text) for seq in range(first, first + size)]
                deltas = [Delta(f"r{first}")] if raw else []
                told.events += events
                told.raw += [delta.text for delta in deltas]
                told.log.append(events, deltas)
            if end:
                seq = len(told.events) + 1
                last = finish(seq) if end == "finish" else error(seq)
                told.events.append(last)
                told.ended = True
                told.log.append([last])
            await flushed()
            told.visible = len(told.events)

        self.run(append())

    @rule(id=logs, size=st.integers(1, 5))
    def append_and_die(self, id: str, size: int) -> None:
        """Appended is stored: it is there when the process dies right behind it."""
        told = self.told.get(id)
        if told is None or told.ended:
            return

        async def append_and_die() -> None:
            assert told is not None
            first = len(told.events) + 1
            events: list[Event] = [token(seq) for seq in range(first, first + size)]
            told.events += events
            told.raw.append("last")
            told.visible = len(told.events)
            told.log.append(events, [Delta("last")])
            await self.store.abandon()

        self.run(append_and_die())
        self.come_back()

    @rule(target=readers, id=logs, room=st.one_of(st.none(), st.integers(0, 60)))
    def attach(self, id: str, room: int | None) -> Following | None:
        told = self.told.get(id)
        if told is None:
            return None

        async def attach() -> Following:
            assert told is not None
            reader = Collector(room)
            return Following(told, reader, told.log.attach(reader))

        following: Following = self.run(attach())
        self.following.append(following)
        return following

    @rule(following=readers, room=st.one_of(st.none(), st.integers(0, 60)))
    def resume(self, following: Following | None, room: int | None) -> None:
        async def resume() -> None:
            assert following is not None
            following.reader.room = room
            following.hold.resume()
            await flushed()

        if following is not None and not following.closed:
            self.run(resume())

    @rule(following=consumes(readers))
    def close(self, following: Following | None) -> None:
        if following is not None and not following.closed:
            following.closed = True
            following.hold.close()

    @rule()
    def checkpoint(self) -> None:
        self.run(self.store.checkpoint())

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        self.run(self.store.abandon() if crash else self.store.close())
        self.come_back()

    @rule()
    def everybody_who_reads_on_gets_everything(self) -> None:
        async def read_on() -> None:
            for following in self.following:
                if not following.closed:
                    following.reader.room = None
                    following.hold.resume()
                    await following.reader.until(following.told.visible)
                    assert following.reader.seen == following.told.events

        self.run(read_on())

    def come_back(self) -> None:
        """Readers of the dead process are gone; those logs that nobody stored never were."""
        for following in self.following:
            following.closed = True
            following.hold.close()
        self.told = {id: told for id, told in self.told.items() if told.events}
        self.open()

    @invariant()
    def nobody_has_seen_what_is_not_there(self) -> None:
        for following in self.following:
            seen = following.reader.seen
            assert seen == following.told.events[: len(seen)]
            # Only the end of its process may take a log from a reader.
            assert following.reader.error is None or following.closed
            assert sum(event.end is not None for event in seen) <= 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for following in self.following:
                following.hold.close()
            self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)


def test_whatever_happens_readers_and_restarts_see_the_same_log() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=50, stateful_step_count=30, deadline=None),
    )
