"""An idempotency key finds its generation: while it runs, when it has ended, after a crash, for a day."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.streams.bounds import Bounds
from headrace.streams.hub import Hub
from headrace.streams.memory import MemoryStore
from headrace.streams.repeats import KEEP_S
from headrace.streams.sqlite import SqliteStore
from headrace.streams.store import Store
from tests.streams.parts import finish, header, token

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NOW = 1_795_346_282.0


def begin(store: Store, id: str, key: str | None, *, ends: bool = True, **fields: Any) -> None:
    log = Hub(store).create(header(id, key=key, **fields))
    log.append([token(1), finish(2)] if ends else [token(1)])


async def found(store: Store, key: str, tenant: str = "default") -> str | None:
    repeat = await store.repeat(tenant, key)
    return None if repeat is None else repeat.id


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Clock]]:
    clock = Clock()
    if request.param == "memory":
        yield MemoryStore(clock=clock), clock
    else:
        yield SqliteStore(tmp_path / "headrace.db", clock=clock), clock


def test_a_key_finds_its_tenants_generation(run: Run, made: tuple[Store, Clock]) -> None:
    store, clock = made

    async def scene() -> None:
        await store.open()
        begin(store, "gen_a", "one", ends=False)
        begin(store, "gen_b", "two")
        begin(store, "gen_c", "one", tenant="other")
        begin(store, "gen_d", None)
        for _ in range(2):  # in memory, then committed
            assert await found(store, "one") == "gen_a"
            assert await found(store, "two") == "gen_b"
            assert await found(store, "one", "other") == "gen_c"
            assert await found(store, "three") is None
            if isinstance(store, SqliteStore):
                await store.checkpoint()
        clock.now += KEEP_S + 1
        assert await found(store, "two") is None
        begin(store, "gen_e", "two", created=clock.now)
        assert await found(store, "two") == "gen_e"
        await store.close()

    run(scene())


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_key_is_known_after_a_crash(run: Run, tmp_path: Path, checkpointed: bool) -> None:
    path = tmp_path / "headrace.db"

    async def before() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()
        begin(store, "gen_a", "one", ends=False)
        begin(store, "gen_b", "two")
        if checkpointed:
            await store.checkpoint()
        await store.abandon()

    async def after() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()
        assert await found(store, "one") == "gen_a"
        assert await found(store, "two") == "gen_b"
        await store.close()

    run(before())
    run(after())
    run(after())


def test_a_commit_that_failed_forgets_no_key(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "headrace.db"

    async def scene() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON repeats BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            begin(store, "gen_a", "one")
            await store.checkpoint()
            assert await found(store, "one") == "gen_a"
            other.execute("DROP TRIGGER no")
        await store.checkpoint()
        assert await found(store, "one") == "gen_a"
        await store.close()
        with closing(sqlite3.connect(path)) as again:
            assert again.execute("SELECT id FROM repeats").fetchall() == [("gen_a",)]

    run(scene())


def test_keys_are_dropped_when_they_are_a_day_old(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "headrace.db"
    clock = Clock()

    async def scene() -> None:
        store = SqliteStore(path, clock=clock)
        await store.open()
        begin(store, "gen_a", "one")
        await store.checkpoint()
        clock.now += KEEP_S + 1
        begin(store, "gen_b", "two", created=clock.now)
        await store.close()
        with closing(sqlite3.connect(path)) as again:
            assert again.execute("SELECT id FROM repeats").fetchall() == [("gen_b",)]

    run(scene())


def test_a_dropped_generation_takes_its_key_along_in_memory(run: Run) -> None:
    async def scene() -> None:
        store = MemoryStore(Bounds(keep_generations=1), clock=lambda: NOW)
        begin(store, "gen_a", "one")
        begin(store, "gen_b", "two")
        assert await found(store, "one") is None
        assert await found(store, "two") == "gen_b"

    run(scene())
