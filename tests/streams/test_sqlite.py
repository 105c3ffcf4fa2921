"""``SqliteStore``: what a crash, a full disk, a damaged file and a second process make of it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.domain.request import CANCEL, CONTINUE
from headrace.streams import checkpoint
from headrace.streams.bounds import Bounds
from headrace.streams.checkpoint import BACKLOG_BYTES
from headrace.streams.encoded import encode, encode_run
from headrace.streams.hub import Hub
from headrace.streams.journal import journal_files
from headrace.streams.log import Log
from headrace.streams.pack import packed, unpack
from headrace.streams.sqlite import SqliteStore
from tests.streams.damage import delete_event
from tests.streams.parts import (
    Collector,
    finish,
    flushed,
    header,
    progress,
    read_all,
    token,
    tokens,
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "headrace.db"


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def test_nobody_else_on_the_machine_reads_what_is_kept(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        Hub(store).create(header("gen_a")).append([token(1), finish(2)])
        await flushed()
        modes = {file.name: file.stat().st_mode & 0o077 for file in path.parent.iterdir()}
        assert not any(modes.values()), modes
        assert {"headrace.db", "headrace.db-wal"} <= modes.keys()
        await store.close()

    run(main())


def test_an_unfinished_log_is_recovered_with_its_events_raw_deltas_and_when_it_was_left(
    run: Run, path: Path
) -> None:
    async def main(checkpointed: bool) -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        store = SqliteStore(path)
        assert await store.open() == []
        hub = Hub(store)
        log, other = hub.create(header("gen_a")), hub.create(header("gen_b", leaving=CANCEL))
        log.append([progress(1)])
        log.append([token(2), token(3)], [Delta("ab", token_ids=(1, 2)), Delta("c")])
        other.append([token(1)])
        await flushed()
        log.left(12.5)
        log.append((), [Delta("held", token_ids=(9,))])
        await flushed()
        if checkpointed:
            await store.checkpoint()
        log.append([token(4)], [Delta("d")])
        await flushed()
        if checkpointed:
            await store.checkpoint()
        await store.abandon()

        store = SqliteStore(path)
        first, second = await store.open()
        assert first.header == header("gen_a")
        assert first.events == [progress(1), token(2), token(3), token(4)]
        assert [delta.text for delta in first.raw] == ["ab", "c", "held", "d"]
        assert first.raw[0].token_ids == (1, 2)
        assert first.left_at == 12.5
        assert (second.header.id, second.events, second.raw, second.left_at) == (
            "gen_b",
            [token(1)],
            [],
            None,
        )
        await store.close()

    run(main(False))
    run(main(True))


def test_a_recovered_log_goes_on_where_it_stopped_and_ends_once(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        log.append([token(1)], [Delta("x")])
        await flushed()
        await store.abandon()

        store = SqliteStore(path)
        [recovered] = await store.open()
        hub = Hub(store)
        log = hub.adopt(recovered.header, recovered.events)
        reader = Collector()
        log.attach(reader)
        log.append([token(2)], [Delta("y")])
        await reader.until(2)
        log.left(1.0)
        log.left(None)
        await flushed()
        await store.abandon()

        store = SqliteStore(path)
        [recovered] = await store.open()
        assert [delta.text for delta in recovered.raw] == ["x", "y"]
        assert recovered.left_at is None
        log = Hub(store).adopt(recovered.header, recovered.events)
        log.append([finish(3)])
        await flushed()
        await store.close()

        store = SqliteStore(path)
        assert await store.open() == []
        assert await read_all(store, "gen_a") == [token(1), token(2), finish(3)]
        await store.close()
        rows = sqlite3.connect(path).execute("SELECT count(*) FROM raw").fetchone()
        assert rows == (0,)
        assert journal_files(path) == []

    run(main())


def used(journal: Path) -> int:
    """Where the records in a journal file end."""
    return len(journal.read_bytes().rstrip(b"\0"))


def test_a_record_cut_short_by_the_death_of_its_process_is_as_if_it_had_never_been(
    run: Run, path: Path, tmp_path: Path
) -> None:
    async def write() -> tuple[int, int]:
        store = SqliteStore(path, journal_bytes=10_000)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        log.append([token(1)], [Delta("1")])
        journal = store.journal.file.path
        whole = used(journal)
        log.append([token(2), finish(3)], [Delta("2")])
        await store.abandon()
        return whole, used(journal)

    async def reopen(cut: int, length_too: bool) -> None:
        copy = tmp_path / f"cut{cut}{length_too}"
        shutil.copytree(path.parent, copy)
        journal = journal_files(copy / path.name)[0]
        data = bytearray(journal.read_bytes())
        data[cut:] = bytes(len(data) - cut)
        if not length_too:
            data[start : start + 4] = bytes(4)  # it is written last
        journal.write_bytes(data)
        store = SqliteStore(copy / path.name)
        recovered = await store.open()
        if cut < end or not length_too:
            assert [(one.events, one.raw) for one in recovered] == [([token(1)], [Delta("1")])]
        else:
            assert recovered == []
            assert await read_all(store, "gen_a") == [token(1), token(2), finish(3)]
        await store.close()
        shutil.rmtree(copy)

    start, end = run(write())
    assert end - start > 50
    for cut in range(start, end + 1):
        run(reopen(cut, length_too=True))
        run(reopen(cut, length_too=False))


def test_a_damaged_last_record_is_ignored_too(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        for seq in (1, 2):
            log.append([token(seq)])
        await store.abandon()
        journal = journal_files(path)[0]
        data = bytearray(journal.read_bytes())
        data[used(journal) - 3] ^= 1
        journal.write_bytes(data)
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == [token(1)]
        await store.close()

    run(main())


def older_frame(number: int, *records: tuple[int, int, int, int, bytes, int, bytes]) -> bytes:
    """A frame as the journal had them before it was mapped."""
    body = b"".join(
        struct.pack("<BQIIIII", kind, n, first, count, len(run), raw_count, len(raw)) + run + raw
        for kind, n, first, count, run, raw_count, raw in records
    )
    return struct.pack("<IIQ", len(body), zlib.crc32(body, number), number) + body


def test_a_crash_of_version_1_of_the_journal_loses_nothing_to_this_one(
    run: Run, path: Path
) -> None:
    def begin(n: int, id: str) -> tuple[int, int, int, int, bytes, int, bytes]:
        return 1, n, 0, 0, msgspec.msgpack.encode(header(id)), 0, b""

    path.parent.mkdir()
    path.with_name(f"{path.name}.000001.journal").write_bytes(
        older_frame(
            1,
            begin(1, "gen_a"),
            (2, 1, 1, 2, encode_run(tokens(1, 2)), 1, encode_run([Delta("raw")])),
            begin(2, "gen_b"),
            (2, 2, 1, 1, encode_run([token(1)]), 0, b""),
        )
        + older_frame(
            2,
            (3, 2, 2, 1, encode_run([finish(2)]), 0, b""),
            (5, 1, 0, 0, struct.pack("<d", 12.5), 0, b""),
        )
        + older_frame(3, (2, 1, 3, 1, encode_run([token(3)]), 0, b""))[:-1]  # never completed
    )

    async def main() -> None:
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.header == header("gen_a")
        assert (recovered.events, recovered.raw) == (tokens(1, 2), [Delta("raw")])
        assert recovered.left_at == 12.5
        assert await read_all(store, "gen_b") == [token(1), finish(2)]
        await store.close()

    run(main())


def test_a_crash_of_version_2_of_the_journal_loses_nothing_to_this_one(
    run: Run, path: Path
) -> None:
    def frame(
        number: int, kind: int, n: int, *parts: bytes, events: int = 0, raw: int = 0
    ) -> bytes:
        encoded, run, deltas = parts
        body = struct.pack("<QBQIIIII", number, kind, n, 0, events, len(encoded), len(run), raw)
        body += encoded + run + deltas
        return struct.pack("<II", len(body), zlib.crc32(body)) + body

    begun = [msgspec.msgpack.encode(header(f"gen_{name}")) for name in "ab"]
    files = (
        frame(
            7, 2, 1, begun[0], encode_run(tokens(1, 2)), encode_run([Delta("raw")]), events=2, raw=1
        )
        + frame(8, 3, 2, begun[1], encode_run([token(1), finish(2)]), b"", events=2)
        + frame(9, 5, 1, b"", struct.pack("<d", 12.5), b""),
        frame(10, 2, 1, b"", encode_run([token(3)]), b"", events=1)
        + frame(11, 2, 1, b"", encode_run([token(4)]), b"", events=1)[:-2],  # never completed
    )
    path.parent.mkdir()
    for number, data in enumerate(files, 9):
        file = path.with_name(f"{path.name}.{number:06}.journal")
        file.write_bytes((b"headrace journal 2\n" + data).ljust(10_000, b"\0"))

    async def main() -> None:
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert (recovered.header, recovered.events) == (header("gen_a"), tokens(1, 3))
        assert (recovered.raw, recovered.left_at) == ([Delta("raw")], 12.5)
        assert await read_all(store, "gen_b") == [token(1), finish(2)]
        log = Hub(store).adopt(recovered.header, recovered.events)
        log.append([token(4)])  # numbered behind the frames of before
        await store.abandon()
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == tokens(1, 4)
        await store.close()

    run(main())


def test_a_database_of_the_version_before_goes_on(run: Run, path: Path) -> None:
    """Packs of version 2 of the schema hold header and events apart; its pages are small and stay so."""

    async def write() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        for name in "ab":
            hub.create(header(f"gen_{name}", session_id="s")).append([token(1), finish(2)])
        await store.close()

    async def reopen() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        hub.create(header("gen_c", session_id="s")).append([token(1), finish(2)])
        for name in "abc":
            assert await read_all(store, f"gen_{name}") == [token(1), finish(2)]
            assert (await hub.find(f"gen_{name}")).header == header(f"gen_{name}", session_id="s")
        await store.checkpoint()
        listed = await store.list("default", "s", 10)
        assert [one.id for one in listed] == ["gen_c", "gen_b", "gen_a"]
        await store.close()

    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.executescript(
            "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL"
        )
    run(write())
    with closing(sqlite3.connect(path)) as other, other:
        assert other.execute("PRAGMA page_size").fetchone() == (4096,)
        [(body,)] = other.execute("SELECT body FROM packs").fetchall()
        older = [
            msgspec.structs.replace(
                log, header=encode(log.kept().header), run=encode_run(log.after(0, 1000))
            )
            for log in unpack(body)
        ]
        other.execute("UPDATE packs SET body = ?", (packed(older).body,))
        other.execute("PRAGMA user_version = 2")
    run(reopen())


def test_a_file_that_is_no_journal_stops_the_start_by_name(run: Run, path: Path) -> None:
    path.parent.mkdir()
    path.with_name(f"{path.name}.000007.journal").write_bytes(b"\x01\x02 from before")
    with pytest.raises(HeadraceError) as refused:
        run(SqliteStore(path).open())
    assert "000007.journal is not a journal" in refused.value.message


def test_the_journal_rotates_and_files_whose_events_sqlite_has_are_deleted(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path, journal_bytes=5_000)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        for seq in range(1, 1001):
            log.append([token(seq)])
            await flushed()
        assert len(journal_files(path)) > 3
        await store.checkpoint()
        assert len(journal_files(path)) <= 3  # the one being written, and those that follow
        assert await read_all(store, "gen_a") == tokens(1, 1000)
        await store.abandon()
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == tokens(1, 1000)
        await store.close()

    run(main())


def test_playing_a_journal_back_again_changes_nothing(run: Run, path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        log, done = hub.create(header("gen_a")), hub.create(header("gen_b"))
        log.append([token(1)], [Delta("x")])
        done.append([finish(1)])
        await flushed()
        journal = shutil.copy(journal_files(path)[0], tmp_path / "kept")
        await store.close()
        shutil.copy(journal, path.with_name(f"{path.name}.000099.journal"))

        store = SqliteStore(path, Bounds(keep_generations=0))
        [recovered] = await store.open()
        assert (recovered.events, recovered.raw) == ([token(1)], [Delta("x")])
        with pytest.raises(HeadraceError):  # dropped by the bounds
            await store.find("gen_b")
        await store.close()
        shutil.copy(journal, path.with_name(f"{path.name}.000100.journal"))

        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == [token(1)]
        with pytest.raises(HeadraceError):  # and stays so
            await store.find("gen_b")
        await store.close()

    run(main())


def test_tombstones_outlive_a_restart(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path, Bounds(keep_generations=1))
        await store.open()
        hub = Hub(store)
        for number in range(5):
            hub.create(header(f"gen_{number}")).append([token(1), finish(2)])
            await flushed()
            await store.checkpoint()
        await store.close()
        store = SqliteStore(path)
        await store.open()
        for number in range(4):
            with pytest.raises(HeadraceError) as refused:
                await store.find(f"gen_{number}")
            assert refused.value.code is Code.CURSOR_GONE
        assert await store.find("gen_4") is not None
        assert await store.find("gen_5") is None
        await store.close()

    run(main())


def test_dropping_leaves_the_segments_of_running_logs_alone(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path, Bounds(keep_generations=2))
        await store.open()
        hub = Hub(store)
        running = []
        for number in range(10):
            log = hub.create(header(f"gen_{number}"))
            log.append([token(1)])
            running.append(log)
        await flushed()
        await store.checkpoint()  # all have a row
        for log in running[::2]:
            log.append([finish(2)])
        await flushed()
        await store.checkpoint()
        for log in running[1::2]:
            assert await read_all(store, log.id) == [token(1)]
        assert sqlite3.connect(path).execute("SELECT count(*) FROM segments").fetchone() == (9,)
        await store.close()

    run(main())


def test_the_file_shrinks_when_much_was_dropped(run: Run, path: Path) -> None:
    async def main() -> None:
        now = [1000.0]
        store = SqliteStore(path, Bounds(keep_s=10), clock=lambda: now[0])
        await store.open()
        hub = Hub(store)
        for number in range(300):
            log = hub.create(header(f"gen_{number}"))
            log.append([*tokens(1, 30, "x" * 3000), finish(31)])
            await flushed()
        await store.checkpoint()
        large = size_of(path)
        now[0] += 11
        assert await store.list("default", None, 10) == []
        await store.close()
        assert large > 25_000_000
        assert size_of(path) < large / 2

    run(main())


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_an_event_missing_from_a_stored_log_is_a_gap_for_its_reader(
    run: Run, path: Path, missing: int
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        for seq in (1, 2, 3):
            log.append([token(seq)])
            await flushed()
            await store.checkpoint()  # each in its own segment
        await store.abandon()
        store = SqliteStore(path)
        [recovered] = await store.open()
        log = Hub(store).adopt(recovered.header, recovered.events)
        log.append([token(4), finish(5)])
        await flushed()
        await store.close()
        delete_event(path, "gen_a", missing)
        store = SqliteStore(path)
        await store.open()
        reader = Collector()
        (await Hub(store).find("gen_a")).attach(reader)
        await reader.until(5)
        assert reader.seqs == [seq for seq in range(1, 6) if seq != missing]
        await store.close()

    run(main())


def test_an_event_missing_from_an_unfinished_log_does_not_stop_the_start(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        Hub(store).create(header("gen_a")).append(tokens(1, 3))
        await flushed()
        await store.close()
        delete_event(path, "gen_a", 3)
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == tokens(1, 2)
        log = Hub(store).adopt(recovered.header, recovered.events)
        log.append([finish(3)])
        await flushed()
        assert await read_all(store, "gen_a") == [*tokens(1, 2), finish(3)]
        await store.close()

    run(main())


def test_a_stored_log_without_its_end_is_lost_to_the_reader_not_endless(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        Hub(store).create(header("gen_a")).append([token(1), finish(2)])
        await flushed()
        await store.close()
        delete_event(path, "gen_a", 2)
        store = SqliteStore(path)
        await store.open()
        reader = Collector()
        (await Hub(store).find("gen_a")).attach(reader)
        assert (await reader.until_lost()).code is Code.STORE_FAILED
        assert reader.seqs == [1]
        await store.close()

    run(main())


def test_a_reader_attached_between_the_showing_of_two_logs_sees_each_event_once(
    run: Run, path: Path
) -> None:
    class AttachesToOther(Collector):
        def __init__(self, other: Log) -> None:
            super().__init__()
            self.other = other
            self.of_other = Collector()

        def events(self, events: Sequence[Event]) -> bool:
            self.other.attach(self.of_other)
            return super().events(events)

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        first, second = hub.create(header("gen_a")), hub.create(header("gen_b"))
        second.append([token(1)])
        await flushed()
        reader = AttachesToOther(second)
        first.attach(reader)
        first.append([finish(1)])
        second.append([token(2)])  # stored together with the first log's event
        await flushed()
        assert reader.of_other.seqs == [1, 2]
        await store.close()

    run(main())


def test_what_comes_while_the_store_closes_is_refused_and_not_half_stored(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log, reader = Hub(store).create(header("gen_a")), Collector()
        log.attach(reader)
        log.append([token(1)])
        closing_store = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        log.append([token(2)])
        assert (await reader.until_lost()).code is Code.SHUTTING_DOWN
        await closing_store
        await store.close()
        assert reader.seqs == [1]
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == [token(1)]
        await store.close()

    run(main())


def test_a_second_process_is_refused_the_same_store(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        with pytest.raises(HeadraceError) as refused:
            await SqliteStore(path).open()
        assert refused.value.code is Code.STORE_FAILED
        assert str(path) in refused.value.message
        assert "another process" in refused.value.message
        await store.close()

    run(main())


def test_a_file_that_is_no_store_is_refused_by_name(run: Run, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it is a letter to somebody" * 100)
    with pytest.raises(HeadraceError) as refused:
        run(SqliteStore(path).open())
    assert refused.value.code is Code.STORE_FAILED
    assert str(path) in refused.value.message


def forbid_segments(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.executescript(
            "CREATE TRIGGER no BEFORE INSERT ON segments BEGIN SELECT RAISE(FAIL, 'no'); END"
        )


def allow_segments(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.executescript("DROP TRIGGER no")


def test_while_sqlite_cannot_be_written_nothing_is_lost_and_it_recovers(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        written: list[Event] = [*tokens(1, 9), finish(10)]
        log.append(written[:5], [Delta("x")])
        await flushed()
        forbid_segments(path)
        await store.checkpoint()  # fails
        log.append(written[5:])
        await flushed()
        assert await read_all(store, "gen_a") == written
        await store.checkpoint()  # fails again
        allow_segments(path)
        await store.checkpoint()
        assert await read_all(store, "gen_a") == written
        await store.close()
        store = SqliteStore(path)
        assert await store.open() == []
        assert await read_all(store, "gen_a") == written
        await store.close()

    run(main())


@pytest.mark.parametrize("crash", [True, False])
def test_the_journal_keeps_what_sqlite_never_took(run: Run, path: Path, crash: bool) -> None:
    async def main() -> None:
        store = SqliteStore(path, journal_bytes=2000)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        for seq in range(1, 201):
            log.append([token(seq)], [Delta(str(seq))])
            await flushed()
            if seq == 10:
                await store.checkpoint()
                forbid_segments(path)
            if seq % 50 == 0:
                await store.checkpoint()  # fails
        await (store.abandon() if crash else store.close())
        allow_segments(path)
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert recovered.events == tokens(1, 200)
        assert [delta.text for delta in recovered.raw] == [str(seq) for seq in range(1, 201)]
        await store.close()

    run(main())


def test_what_waits_for_a_sqlite_that_takes_nothing_is_bounded_and_it_recovers(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        hub.create(header("gen_first")).append([token(1)])
        await store.checkpoint()
        forbid_segments(path)
        log, seq = hub.create(header("gen_a")), 0
        while log.failure is None and seq * 4000 < 2 * BACKLOG_BYTES:
            seq += 1
            log.append([token(seq, "x" * 4000)])
        assert log.failure is not None
        assert log.failure.code is Code.STORE_FAILED
        assert log.visible_seq == seq - 1
        assert seq * 4000 > BACKLOG_BYTES // 2
        allow_segments(path)
        other = hub.create(header("gen_b"))
        other.append([token(1), finish(2)])
        assert other.end == "finish"
        await store.checkpoint()
        assert len(journal_files(path)) <= 4
        await store.close()

    run(main())


async def fallen_behind(store: SqliteStore) -> tuple[asyncio.Task[None], int]:
    """Somebody who waits for it to catch up, behind so many logs that ended later than they began."""
    hub = Hub(store)
    for made in range(1, 2000):
        log = hub.create(header(f"gen_{made}"))
        log.append([token(1)])
        log.append([finish(2)])
        waiting = asyncio.create_task(store.caught_up())
        await asyncio.sleep(0)
        if not waiting.done():
            return waiting, made
    raise AssertionError("it never was behind")


def test_who_waits_for_the_store_has_it_catch_up_without_a_pause(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "COMMIT_AGAIN_S", 1000.0)

    async def main() -> None:
        store = SqliteStore(path, journal_bytes=150_000)
        await store.open()
        waiting, made = await fallen_behind(store)
        assert made > checkpoint.COMMIT_LOGS  # more than one commit takes
        async with asyncio.timeout(10):
            await waiting
        with closing(sqlite3.connect(path)) as other:
            found = other.execute("SELECT count(*) FROM generations WHERE end IS NOT NULL")
            assert found.fetchone()[0] >= made - 1  # all but what is in the next file
        await store.close()

    run(main())


def test_who_waits_for_a_store_that_cannot_be_written_is_told(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path, journal_bytes=20_000)
        await store.open()
        forbid_segments(path)
        waiting, _ = await fallen_behind(store)
        with pytest.raises(HeadraceError) as told:
            async with asyncio.timeout(10):
                await waiting
        assert told.value.code is Code.STORE_FAILED
        allow_segments(path)
        await store.checkpoint()
        await store.caught_up()
        await store.close()

    run(main())


def test_raw_deltas_survive_a_failed_commit(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        log.append([token(1)], [Delta("x")])
        await flushed()
        forbid_segments(path)
        await store.checkpoint()
        allow_segments(path)
        log.append([token(2)], [Delta("y")])
        await flushed()
        await store.close()  # from here on there is no journal
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert [delta.text for delta in recovered.raw] == ["x", "y"]
        await store.close()

    run(main())


def test_events_can_be_read_at_once_while_they_are_being_committed(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        log = Hub(store).create(header("gen_a"))
        log.append(tokens(1, 3))
        await flushed()
        committing = asyncio.create_task(store.checkpoint())
        await asyncio.sleep(0)
        log.append(tokens(4, 3))
        assert store.recent("gen_a", 0, 1000) == tokens(1, 3)
        reader = Collector()
        log.attach(reader)
        assert reader.seqs == [1, 2, 3, 4, 5, 6]
        await committing
        await reader.until(6)
        assert reader.seqs == [1, 2, 3, 4, 5, 6]
        await store.close()

    run(main())


_FULL_DISK = """
import asyncio, resource, sys
from headrace.streams.hub import Hub
from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import Collector, finish, flushed, header, token

async def main():
    store = SqliteStore(sys.argv[1], journal_bytes=20_000)
    await store.open()
    hub = Hub(store)
    readers = {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, resource.RLIM_INFINITY))
    for number in range(100):
        log = hub.create(header(f"gen_{number:03}"))
        log.attach(reader := Collector())
        readers[log.id] = reader, log
        for seq in range(1, 6):
            log.append([token(seq, "x" * 1000)])
            await flushed()
        log.append([finish(6)])
        await flushed()
    failed = [id for id, (reader, _) in readers.items() if reader.error]
    assert failed and all(readers[id][0].error.code == "store_failed" for id in failed), failed
    assert all(log.ended != bool(reader.error) for reader, log in readers.values())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log = hub.create(header("gen_after"))
    log.attach(reader := Collector())
    log.append([token(1), finish(2)])
    await reader.until(2)
    readers[log.id] = reader, log
    for id, (reader, _) in readers.items():
        for event in reader.seen:
            print(id, event.seq)
    sys.stdout.flush()
    await store.abandon()

asyncio.run(main())
"""


def test_on_a_full_disk_logs_fail_none_is_lost_silently_and_the_store_lives_on(
    run: Run, path: Path
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=Path(__file__).parents[2],
    )
    assert child.returncode == 0, child.stderr
    seen: dict[str, list[int]] = {}
    for line in child.stdout.splitlines():
        id, seq = line.split()
        seen.setdefault(id, []).append(int(seq))
    assert seen["gen_after"] == [1, 2]

    async def main() -> None:
        store = SqliteStore(path)
        recovered = {one.header.id: one.events for one in await store.open()}
        for id, seqs in seen.items():
            events = recovered.get(id) or await read_all(store, id)
            assert [event.seq for event in events] == seqs
        await store.close()

    run(main())


def test_a_client_that_left_before_the_first_event_takes_no_event_with_it(
    run: Run, path: Path
) -> None:
    async def main(journal_bytes: int) -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        store = SqliteStore(path, journal_bytes=journal_bytes)
        await store.open()
        await asyncio.sleep(0.02)
        log = Hub(store).create(header("gen_a"))
        log.left(1.0)
        log.append([token(1)])
        await store.checkpoint()  # a file that nobody needs goes
        log.append([token(2)])
        await store.abandon()
        store = SqliteStore(path)
        [recovered] = await store.open()
        assert (recovered.events, recovered.left_at) == (tokens(1, 2), 1.0)
        await store.close()

    for journal_bytes in range(150, 420, 10):  # one of them is full right behind the first event
        run(main(journal_bytes))


def test_a_damaged_pack_is_an_error_for_its_logs_and_for_nothing_else(run: Run, path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        for name in "ab":
            hub.create(header(f"gen_{name}")).append([token(1), finish(2)])
            await store.checkpoint()
        await store.close()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE packs SET body = x'ff' WHERE k = 1")
        store = SqliteStore(path, Bounds(keep_generations=2))
        await store.open()
        with pytest.raises(HeadraceError) as refused:
            await store.find("gen_a")
        assert refused.value.code is Code.STORE_FAILED
        assert [found.id for found in await store.list("default", None, 10)] == ["gen_b"]
        hub = Hub(store)
        for name in "cd":  # now it is to be dropped
            hub.create(header(f"gen_{name}")).append([token(1), finish(2)])
            await store.checkpoint()
        with pytest.raises(HeadraceError) as refused:
            await store.find("gen_a")
        assert refused.value.code is Code.CURSOR_GONE
        assert await read_all(store, "gen_d") == [token(1), finish(2)]
        await store.close()
        totals = sqlite3.connect(path).execute("SELECT finished FROM totals").fetchone()
        assert totals == (2,)

    run(main())


def test_many_short_logs_are_in_few_packs_and_each_is_found_listed_and_dropped_alone(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path, Bounds(keep_generations=700))
        await store.open()
        hub = Hub(store)
        for number in range(1000):
            session = "s" if number % 100 == 0 else None
            log = hub.create(header(f"gen_{number:04}", session_id=session))
            log.append([token(1, f"word{number}"), finish(2)])
        await store.checkpoint()
        packs = sqlite3.connect(path).execute("SELECT count(*), sum(logs) FROM packs").fetchone()
        assert packs[0] < 10
        assert packs[1] == 700
        with pytest.raises(HeadraceError) as refused:
            await store.find("gen_0299")
        assert refused.value.code is Code.CURSOR_GONE
        for number in (300, 301, 555, 999):
            assert await read_all(store, f"gen_{number:04}") == [
                token(1, f"word{number}"),
                finish(2),
            ]
        listed = await store.list("default", None, 3)
        assert [one.id for one in listed] == ["gen_0999", "gen_0998", "gen_0997"]
        listed = await store.list("default", "s", 10)
        assert [one.id for one in listed] == [f"gen_{n:04}" for n in range(900, 299, -100)]
        await store.close()

    run(main())


def test_a_log_that_ended_with_raw_deltas_leaves_memory_and_is_counted_once(
    run: Run, path: Path
) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        hub = Hub(store)
        for number in range(5):
            log = hub.create(header(f"gen_{number}", leaving=CONTINUE))
            log.append([token(1)], [Delta("a")])
            log.append([token(2)], [Delta("b")])
            log.append([finish(3)])
        for _ in range(4):
            await store.checkpoint()
        assert store._entries == {}
        await store.close()
        totals = sqlite3.connect(path).execute("SELECT finished FROM totals").fetchone()
        assert totals == (5,)

    run(main())


def test_a_log_of_which_something_could_not_be_stored_takes_nothing_more(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = SqliteStore(path, journal_bytes=4096)
        await store.open()
        hub = Hub(store)
        log = hub.create(header("gen_a", leaving=CONTINUE))
        log.append([token(1)])
        await store.checkpoint()

        def no_room(needed: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(store.journal, "_make_room", no_room)
            other = hub.create(header("gen_b", leaving=CONTINUE))
            other.append([token(1)])
            for _ in range(1000):  # to the end of the file
                other.left(1.0)
            log.left(1.0)
        log.append([token(2)])
        assert log.failure is not None
        assert log.visible_seq == 1
        await store.close()

    run(main())
