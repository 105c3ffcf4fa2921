"""The journal's files are used again: what lies in them from before is never taken for new."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.streams.hub import Hub
from headrace.streams.journal import Journal, journal_files, read_records
from headrace.streams.record import APPEND, FINISH, Record, pack_head
from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import finish, header, token

Run = Callable[[Coroutine[Any, Any, Any]], Any]
FILE_BYTES = 1000


class Bench:
    """A journal whose full files are cleared at once, as if SQLite were never behind."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "h.db"
        self.journal = Journal(
            self.database,
            0,
            make_room=self.rotate,
            prepare=lambda: self.journal.adopt(self.journal.reserve()()),
            file_bytes=FILE_BYTES,
        )

    def rotate(self, needed: int) -> None:
        full = self.journal.file
        self.journal.rotate(needed)
        full.begin(0)
        self.journal.adopt(full)

    def read(self) -> list[Record]:
        return [record for file in journal_files(self.database) for record in read_records(file)]


def body(n: int, length: int = 30) -> bytes:
    return pack_head(APPEND, n, 1) + bytes([n % 256]) * length


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("varied", [False, True])
def test_only_frames_of_the_newest_file_are_read_however_often_it_was_full(
    bench: Bench, varied: bool
) -> None:
    """Records of one length put every new frame exactly where a stale one was."""
    chance = random.Random(1)
    held = 0
    for n in range(1, 1001):
        before = bench.journal.file
        bench.journal.append(body(n, chance.randint(1, 60) if varied else 30))
        held = 1 if bench.journal.file is not before else held + 1
        records = bench.read()
        assert [record.frame for record in records] == list(range(n + 1 - held, n + 1))
        assert [record.n for record in records] == list(range(n + 1 - held, n + 1))
    assert held < 30
    assert len(journal_files(bench.database)) <= 3


def test_files_are_read_in_the_order_in_which_they_were_written_whatever_their_names(
    tmp_path: Path,
) -> None:
    kept: list[Any] = []
    database = tmp_path / "h.db"

    def rotate(needed: int) -> None:
        kept.append(journal.file)
        journal.rotate(needed)
        if len(kept) == 2:  # the older of these is behind the others by its name from now on
            kept[0].begin(0)
            journal.adopt(kept.pop(0))

    journal = Journal(database, 0, make_room=rotate, prepare=lambda: None, file_bytes=FILE_BYTES)
    for n in range(1, 501):
        journal.append(body(n))
        frames = [record.frame for file in journal_files(database) for record in read_records(file)]
        assert frames == list(range(frames[0], n + 1))


def cut_short(stale: bytes, new: bytes, first: int, last: int) -> bytes:
    """A file in which only these bytes of what is new were written."""
    return stale[:first] + new[first:last] + stale[last:]


@pytest.mark.parametrize("length", [30, 29, 200])
def test_a_process_that_dies_within_its_first_append_to_a_used_file_leaves_nothing_of_before(
    bench: Bench, tmp_path: Path, length: int
) -> None:
    journal = bench.journal
    for n in range(1, 100):
        journal.append(body(n))
    file = journal.file
    n = 100
    while bench.journal.file is file or bench.journal.file.path == file.path:
        stale = {one: one.read_bytes() for one in journal_files(bench.database)}
        journal.append(body(n, length))
        n += 1
    path = journal.file.path
    new = path.read_bytes()
    copy = tmp_path / "copy"
    # In this order: the number of the first frame, the record, its length and checksum.
    for begun in (False, True):
        before = cut_short(stale[path], new, 24, 32) if begun else stale[path]
        end = 40 + len(body(n, length))
        for written in range(40, end + 1):
            copy.write_bytes(cut_short(before, new, 40, written))
            assert list(read_records(copy)) == []
    for written in range(32, 41):
        copy.write_bytes(cut_short(cut_short(before, new, 40, end), new, 32, written))
        found = list(read_records(copy))
        assert [record.n for record in found] in ([], [n - 1])
    assert [record.n for record in found] == [n - 1]


def test_a_record_larger_than_a_file_has_one_of_its_own(bench: Bench) -> None:
    for n in range(1, 31):
        bench.journal.append(body(n, 5000 if n % 10 == 0 else 30))
        assert bench.read()[-1].n == n
    assert all(file.stat().st_size in (FILE_BYTES,) for file in journal_files(bench.database)[1:])


def test_what_was_dropped_long_ago_does_not_come_back_from_a_used_file(
    run: Run, tmp_path: Path
) -> None:
    """A file that is cleared says so before it is used again: nothing of it is played back."""
    path = tmp_path / "h.db"

    async def main() -> None:
        store = SqliteStore(path, journal_bytes=2000)
        await store.open()
        hub = Hub(store)
        for number in range(60):
            hub.create(header(f"gen_{number:02}")).append([token(1), finish(2)])
            await store.checkpoint()
        files = journal_files(path)
        await store.abandon()
        played = [record for file in files for record in read_records(file)]
        assert 0 < len(played) < 20
        assert all(record.kind == FINISH for record in played)
        assert played[-1].frame == 60
        stale = b"".join(file.read_bytes() for file in files)
        assert stale.count(b"gen_") > len(played)  # it is there, and not read

    run(main())
