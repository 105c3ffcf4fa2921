"""A log that is not to be kept can be read to its end, and goes some time after that: whatever the store, and whatever
happens to the server meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import End
from headrace.domain.request import CANCEL, CONTINUE, Leaving
from headrace.streams.bounds import PASSING_AT_MOST_S, PASSING_S, Bounds
from headrace.streams.database import Changes, Database, Row, Segment
from headrace.streams.hub import Hub
from headrace.streams.memory import MemoryStore
from headrace.streams.retention import first_key
from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import Collector, ManualClock, finish, header, read_all, tokens

Run = Callable[[Coroutine[Any, Any, Any]], Any]
AnyStore = MemoryStore | SqliteStore
ENDED_AT = finish(5).timestamp


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "headrace.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ENDED_AT)


def opened(kind: str, path: Path, clock: ManualClock, bounds: Bounds | None = None) -> AnyStore:
    if kind == "memory":
        return MemoryStore(bounds, clock=clock)
    return SqliteStore(path, bounds, clock=clock)


async def settled(store: AnyStore) -> None:
    if isinstance(store, SqliteStore):
        await store.checkpoint()


def make(hub: Hub, name: str, **fields: Any) -> list[str]:
    """Two logs: one is over with its first events, the other ends later than it begins."""
    hub.create(header(f"gen_{name}w", **fields)).append([*tokens(1, 4), finish(5)])
    log = hub.create(header(f"gen_{name}g", **fields))
    log.append(tokens(1, 3))
    log.append([*tokens(4, 1), finish(5)])
    return [f"gen_{name}w", f"gen_{name}g"]


async def is_there(store: AnyStore, id: str) -> bool:
    listed = id in [one.id for one in await store.list("default", None, 1000)]
    events = await read_all(store, id)
    found = await store.find(id) is not None
    assert found == listed == (len(events) == 5)
    return found


async def assert_missing(hub: Hub, id: str) -> None:
    with pytest.raises(HeadraceError) as refused:
        await hub.find(id)
    assert refused.value.code is Code.GENERATION_NOT_FOUND


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_it_goes_when_its_client_cannot_come_back_any_more(
    run: Run, path: Path, clock: ManualClock, kind: str
) -> None:
    async def main() -> None:
        store = opened(kind, path, clock)
        await store.open()
        hub = Hub(store)
        short = make(hub, "a", keep=False, leaving=CANCEL)
        also = make(hub, "b", keep=False, leaving=Leaving(20.0), tenant="default")
        graced = make(hub, "c", keep=False, leaving=Leaving(1000.0))
        long = make(hub, "d", keep=False, leaving=CONTINUE)
        kept = make(hub, "e")
        running = hub.create(header("gen_running", keep=False, leaving=CANCEL))
        running.append(tokens(1, 5))
        ways = {PASSING_S: [*short, *also], 1000.0: graced, PASSING_AT_MOST_S: long}
        there = [*short, *also, *graced, *long, *kept, "gen_running"]
        await settled(store)
        for after_s, ids in ways.items():
            clock.now = ENDED_AT + after_s - 1
            for id in there:
                assert await is_there(store, id)
                await hub.find(id)  # those that stay may be at hand now
            clock.now = ENDED_AT + after_s + 1
            for id in ids:
                assert not await is_there(store, id)
                await assert_missing(hub, id)
                there.remove(id)
        for id in there:
            assert await is_there(store, id)
        running.append([finish(6)])
        await settled(store)
        clock.now += PASSING_S + 1
        await assert_missing(hub, "gen_running")
        for id in kept:
            assert await is_there(store, id)
        await store.close()

    run(main())


@pytest.mark.parametrize("crash", [True, False])
def test_neither_a_crash_nor_a_restart_keeps_it_longer(
    run: Run, path: Path, clock: ManualClock, crash: bool
) -> None:
    """Its records are still in the journal after a crash."""

    async def before() -> None:
        store = SqliteStore(path, clock=clock)
        await store.open()
        hub = Hub(store)
        for name in ("old", "new"):
            make(hub, name, keep=False, leaving=CANCEL)
            await store.checkpoint()
        kept = make(hub, "kept")
        clock.now = ENDED_AT + PASSING_S + 1
        for id in kept:
            assert await is_there(store, id)
        make(hub, "late", keep=False, leaving=CANCEL)  # its journal is all there is of it
        await (store.abandon() if crash else store.close())

    async def after(ids: list[str]) -> None:
        store = SqliteStore(path, clock=clock)
        await store.open()
        for name in ("old", "new", "late", "kept"):
            for id in (f"gen_{name}w", f"gen_{name}g"):
                assert await is_there(store, id) == (id in ids)
        await store.close()

    run(before())
    if not crash:
        clock.now = ENDED_AT + 2 * PASSING_S + 2
    for _ in range(2):
        run(after(["gen_keptw", "gen_keptg"]))
    with closing(sqlite3.connect(path)) as database:
        for table, rows in (("passing", 0), ("packed", 1 - crash), ("tombstones", 0)):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)
        (finished, size) = database.execute("SELECT finished, bytes FROM totals").fetchone()
        logs = database.execute("SELECT count(*), total(size) FROM generations").fetchone()
        packs = database.execute("SELECT total(logs), total(size) FROM packs").fetchone()
    assert (finished, size) == (logs[0] + packs[0], logs[1] + packs[1])


def test_a_new_pack_is_not_taken_for_one_that_went_before_its_time(
    run: Run, path: Path, clock: ManualClock
) -> None:
    """SQLite gives their number again."""

    async def main() -> None:
        store = SqliteStore(path, clock=clock)
        await store.open()
        hub = Hub(store)
        passing, _ = make(hub, "a", keep=False, leaving=CANCEL)
        await store.checkpoint()
        await hub.delete(passing)
        kept, _ = make(hub, "b")
        await store.checkpoint()
        clock.now += PASSING_S + 1
        assert await is_there(store, kept)
        await store.close()

    run(main())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_bounds_hold_for_it_as_for_others(
    run: Run, path: Path, clock: ManualClock, kind: str
) -> None:
    async def main() -> None:
        store = opened(kind, path, clock, Bounds(keep_generations=4))
        await store.open()
        hub = Hub(store)
        for number in range(10):
            make(hub, str(number), keep=False)
            await settled(store)
        listed = await store.list("default", None, 100)
        assert [one.id for one in listed] == ["gen_9g", "gen_9w", "gen_8g", "gen_8w"]
        if isinstance(store, MemoryStore):
            assert len(store._passing) <= 8
        await store.close()

    run(main())


def test_a_reader_that_is_too_slow_for_it_is_told_why(
    run: Run, path: Path, clock: ManualClock
) -> None:
    async def main() -> None:
        store = SqliteStore(path, clock=clock)
        await store.open()
        hub = Hub(store)
        log = hub.create(header("gen_a", keep=False, leaving=CANCEL))
        slow = Collector(room=1)
        hold = log.attach(slow)
        log.append(tokens(1, 40, "x" * 1000))
        log.append([finish(41)])
        await store.checkpoint()
        clock.now += PASSING_S + 1
        hold.resume()
        lost = await slow.until_lost()
        assert lost.code is Code.GENERATION_NOT_FOUND
        assert "store" in lost.message
        await store.close()

    run(main())


def test_many_go_in_few_statements_and_leave_those_between(path: Path) -> None:
    database = Database(path, Bounds())
    changes = Changes(1, 301)
    for n in range(1, 301):
        end: End | None = None if n % 3 == 1 else "finish"  # running, kept, passing, by turns
        row = Row(n, f"gen_{n}", "default", None, 1, 2, end, ENDED_AT, None, 10, 2, 0, b"")
        changes.rows.append(row)
        changes.segments += [Segment(first_key(n) + i, i + 1, 1, b"e") for i in range(2)]
        if n % 3 == 0:
            changes.passing.append((n, ENDED_AT + PASSING_S))
    changes.finished, changes.finished_bytes = 200, 2000
    database.commit(changes, ENDED_AT)
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    database.enforce(ENDED_AT + PASSING_S + 1)
    database.close()
    assert len(statements) < 20
    with closing(sqlite3.connect(path)) as rest:
        left = [n for n in range(1, 301) if n % 3]
        assert [n for (n,) in rest.execute("SELECT n FROM generations ORDER BY n")] == left
        keys = [first_key(n) + i for n in left for i in range(2)]
        assert [key for (key,) in rest.execute("SELECT key FROM segments ORDER BY key")] == keys
        assert rest.execute("SELECT count(*) FROM passing").fetchone() == (0,)
        assert rest.execute("SELECT finished, bytes FROM totals").fetchone() == (100, 1000)
