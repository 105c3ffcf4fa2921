"""What both stores promise: bounds, lists, reading, tombstones."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.streams.bounds import Bounds
from headrace.streams.hub import Hub
from headrace.streams.log import Log
from headrace.streams.memory import MemoryStore
from headrace.streams.sqlite import SqliteStore
from headrace.streams.store import KeptLog
from tests.streams.parts import (
    Collector,
    ManualClock,
    error,
    finish,
    flushed,
    header,
    read_all,
    tokens,
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]
AnyStore = MemoryStore | SqliteStore


class Bench:
    """A store of the kind under test, with a clock that only moves by hand."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.clock = ManualClock()
        self._kind = kind
        self._path = folder / "headrace.db"

    async def open(self, bounds: Bounds | None = None) -> AnyStore:
        store: AnyStore = (
            MemoryStore(bounds, clock=self.clock)
            if self._kind == "memory"
            else SqliteStore(self._path, bounds, clock=self.clock)
        )
        await store.open()
        self.store = store
        return store

    async def settle(self) -> None:
        """Everything appended is where it stays."""
        await flushed()
        if isinstance(self.store, SqliteStore):
            await self.store.checkpoint()


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(request.param, tmp_path)


def finished(hub: Hub, id: str, events: int = 3, **options: Any) -> Log:
    log = hub.create(header(id, **options))
    log.append([*tokens(1, events - 1), finish(events)])
    return log


async def assert_gone(store: AnyStore, id: str) -> None:
    for ask in (store.find(id), store.read(id, 0, 1000), store.read(id, 2, 1000)):
        with pytest.raises(HeadraceError) as refused:
            await ask
        assert refused.value.code is Code.CURSOR_GONE
        assert "keep" in refused.value.message


def test_what_was_appended_is_read_back_from_any_cursor(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open()
        log = Hub(store).create(header("gen_a"))
        written: list[Event] = [*tokens(1, 500), error(501)]
        for start in range(0, 501, 7):
            log.append(written[start : start + 7])
            await flushed()
            if start % 70 == 0:
                await bench.settle()
        for after in (0, 1, 6, 7, 250, 499, 500):
            assert (await store.read("gen_a", after, 300))[0] == written[after]
        assert await store.read("gen_a", 501, 300) == []
        assert await read_all(store, "gen_a") == written
        await bench.settle()
        assert await read_all(store, "gen_a") == written
        assert await store.find("gen_a") == KeptLog(header("gen_a"), 501, "error")
        assert await store.find("gen_x") is None
        assert await store.read("gen_x", 0, 300) == []
        await store.close()

    run(main())


def test_a_read_returns_about_as_many_bytes_as_asked_for(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open()
        log = Hub(store).create(header("gen_a"))
        for seq in range(1, 201):
            log.append(tokens(seq, 1, "x" * 1000))
            await flushed()
        before = await store.read("gen_a", 0, 10_000)
        await bench.settle()
        after = await store.read("gen_a", 0, 10_000)
        assert 1 <= len(before) <= 10
        assert 1 <= len(after) <= 40  # a segment of 32 KiB is not divided
        await store.close()

    run(main())


def test_more_finished_generations_than_kept_drop_the_oldest_whole(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open(Bounds(keep_generations=3))
        hub = Hub(store)
        running = hub.create(header("gen_0"))
        running.append(tokens(1, 3))
        for number in range(1, 6):
            finished(hub, f"gen_{number}")
            await bench.settle()
        for id in ("gen_1", "gen_2"):
            await assert_gone(store, id)
        for id in ("gen_0", "gen_3", "gen_4", "gen_5"):
            assert len(await read_all(store, id)) == 3
        running.append([finish(4)])
        await bench.settle()
        assert [found.id for found in await store.list("default", None, 10)] != []
        await store.close()

    run(main())


def test_more_bytes_than_kept_drop_the_oldest_whole(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open(Bounds(keep_bytes=25_000))
        hub = Hub(store)
        for number in range(4):
            log = hub.create(header(f"gen_{number}"))
            log.append([*tokens(1, 9, "x" * 1000), finish(10)])
            await bench.settle()
        await assert_gone(store, "gen_0")
        await assert_gone(store, "gen_1")
        assert len(await read_all(store, "gen_3")) == 10
        await store.close()

    run(main())


def test_a_generation_older_than_kept_is_gone_and_a_running_one_never_is(
    run: Run, bench: Bench
) -> None:
    async def main() -> None:
        store = await bench.open(Bounds(keep_s=60))
        hub = Hub(store)
        running = hub.create(header("gen_running"))
        running.append(tokens(1, 3))
        finished(hub, "gen_old")
        await bench.settle()
        bench.clock.now += 50
        finished(hub, "gen_young")
        await bench.settle()
        assert (await store.find("gen_old")) is not None
        bench.clock.now += 11
        await assert_gone(store, "gen_old")
        assert [one.id for one in await store.list("default", None, 9)] == [
            "gen_young",
            "gen_running",
        ]
        assert len(await read_all(store, "gen_running")) == 3
        await store.close()

    run(main())


def test_a_session_is_listed_newest_first_and_only_to_its_tenant(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open()
        hub = Hub(store)
        for number in range(6):
            session = "s" if number % 2 else None
            tenant = "t" if number != 3 else "other"
            finished(hub, f"gen_{number}", tenant=tenant, session_id=session)
            if number == 2:
                await bench.settle()
        hub.create(header("gen_6", tenant="t", session_id="s")).append(tokens(1, 1))
        await flushed()

        async def listed(session: str | None, limit: int = 10) -> list[str]:
            return [found.id for found in await store.list("t", session, limit)]

        assert await listed("s") == ["gen_6", "gen_5", "gen_1"]
        assert await listed(None, 3) == ["gen_6", "gen_5", "gen_4"]
        await bench.settle()
        assert await listed("s") == ["gen_6", "gen_5", "gen_1"]
        assert await listed("s", 2) == ["gen_6", "gen_5"]
        assert await listed("x") == []
        await store.close()

    run(main())


def test_a_lagging_reader_of_a_long_log_is_caught_up_from_the_store(run: Run, bench: Bench) -> None:
    async def main() -> None:
        store = await bench.open()
        log = Hub(store).create(header("gen_a"))
        slow, stubborn = Collector(room=1), Collector(room=1)
        hold = log.attach(slow)
        log.attach(stubborn)
        for first in range(1, 5001, 50):
            log.append(tokens(first, 50))
            await flushed()
        await bench.settle()
        slow.room = None
        hold.resume()
        log.append(tokens(5001, 50))
        await flushed()
        log.append([finish(5051)])
        await slow.until(5051)
        assert slow.seqs == list(range(1, 5052))
        assert stubborn.seqs == list(range(1, 51))
        await store.close()

    run(main())
