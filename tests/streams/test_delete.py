"""A log that was deleted on request is as if it had never been: in memory, in SQLite, after a crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.streams.hub import Hub
from headrace.streams.memory import MemoryStore
from headrace.streams.sqlite import SqliteStore
from headrace.streams.store import Store
from tests.streams.parts import Collector, finish, header, read_all, token, tokens

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "headrace.db"


def whole(hub: Hub, id: str, **fields: Any) -> None:
    """A log that is over with its first events: it will be in a pack."""
    hub.create(header(id, **fields)).append([token(1, id), finish(2)])


def grown(hub: Hub, id: str, **fields: Any) -> None:
    """A log that ends later than it begins: it has a row and segments of its own."""
    log = hub.create(header(id, **fields))
    log.append(tokens(1, 3))
    log.append([token(4, id), finish(5)])


async def assert_never_was(store: Store, id: str) -> None:
    assert await store.find(id) is None
    assert await store.read(id, 0, 1000) == []
    assert store.recent(id, 0, 1000) == []
    for session in (None, "s"):
        assert id not in [one.id for one in await store.list("default", session, 100)]


async def assert_deletable(store: Store, settled: Callable[[], Coroutine[Any, Any, None]]) -> None:
    hub = Hub(store)
    for make in (whole, grown):
        ids = [f"gen_{make.__name__}{number}" for number in range(3)]
        for id in ids:
            make(hub, id, session_id="s")
        await settled()
        await hub.find(ids[1])  # it is at hand now
        await hub.delete(ids[1])
        await assert_never_was(store, ids[1])
        with pytest.raises(HeadraceError) as refused:
            await hub.find(ids[1])
        assert refused.value.code is Code.GENERATION_NOT_FOUND
        await hub.delete(ids[1])
        await hub.delete("gen_never")
        for id in (ids[0], ids[2]):
            assert len(await read_all(store, id)) in (2, 5)
            assert (await hub.find(id)).ended


def test_in_memory(run: Run) -> None:
    async def main() -> None:
        async def settled() -> None: ...

        store = MemoryStore()
        await assert_deletable(store, settled)
        assert len(store._finished) == len(store._entries) == 4
        assert store._finished_bytes == sum(entry.size for entry in store._finished.values())

    run(main())


@pytest.mark.parametrize("committed", [True, False])
def test_in_sqlite(run: Run, path: Path, committed: bool) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()

        async def settled() -> None:
            if committed:
                await store.checkpoint()

        await assert_deletable(store, settled)
        await store.close()

    run(main())
    with closing(sqlite3.connect(path)) as database:
        (finished, size) = database.execute("SELECT finished, bytes FROM totals").fetchone()
        rows = database.execute("SELECT count(*), total(size) FROM generations").fetchone()
        packs = database.execute("SELECT total(logs), total(size) FROM packs").fetchone()
        names = database.execute("SELECT count(*) FROM packed").fetchone()
        sessions = database.execute("SELECT count(*) FROM packed_sessions").fetchone()
    assert (rows[0], packs[0], finished) == (2, 2, 4)
    assert size == rows[1] + packs[1]
    assert names == sessions == (2,)


@pytest.mark.parametrize("crash", [True, False])
def test_a_restart_does_not_bring_it_back(run: Run, path: Path, crash: bool) -> None:
    """Its records are still in the journal then."""

    async def before() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        running = hub.create(header("gen_running"))
        running.append(tokens(1, 2))
        for id in ("gen_a", "gen_b"):
            whole(hub, id + "w", session_id="s")
            grown(hub, id + "g", session_id="s")
        await hub.delete("gen_aw")
        await hub.delete("gen_ag")
        running.append(tokens(3, 2))
        await (store.abandon() if crash else store.close())

    async def after() -> None:
        store = SqliteStore(path)
        (recovered,) = await store.open()
        assert (recovered.header.id, len(recovered.events)) == ("gen_running", 4)
        await assert_never_was(store, "gen_aw")
        await assert_never_was(store, "gen_ag")
        assert len(await read_all(store, "gen_bw")) == 2
        assert len(await read_all(store, "gen_bg")) == 5
        await store.close()

    run(before())
    run(after())
    run(after())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM deleted").fetchone() == (0,)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_reader_that_has_not_read_all_is_told(run: Run, path: Path, kind: str) -> None:
    async def main() -> None:
        store: Store = MemoryStore() if kind == "memory" else SqliteStore(path)
        await store.open()
        hub = Hub(store)
        for id in ("gen_a", "gen_b"):  # more than a reader is given at once
            log = hub.create(header(id))
            log.append(tokens(1, 40, "x" * 1000))
            log.append([finish(41)])
        slow = Collector(room=1)
        other = Collector(room=1)
        hold = (await hub.find("gen_a")).attach(slow)
        rest = (await hub.find("gen_b")).attach(other)
        await hub.delete("gen_a")
        assert (await slow.until_lost()).code is Code.GENERATION_NOT_FOUND
        hold.resume()
        hold.close()
        other.room = None
        rest.resume()
        await other.until(41)
        assert hub.readers == 0
        await store.close()

    run(main())
