"""The deciders and readers that jobs are made of, alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import OVER, Fingerprint, Job, Order, State
from headrace.jobs import lines as lines_module
from headrace.jobs.done import Done
from headrace.jobs.duplicates import Suspects
from headrace.jobs.lines import BadInput, Line, Lines
from headrace.jobs.retrying import BUSY, LONGEST_S, MOST_TOLD_S, MOST_TRIES, Tries
from headrace.jobs.room import Room
from headrace.jobs.states import FOLLOWING, moved

ORDER = Order(
    tenant="t", key_id="", endpoint="/v1/completions", input_file="f", window="1h", window_s=3600.0
)


def job(state: State) -> Job:
    return Job(
        id="batch_1",
        order=ORDER,
        created_at=0.0,
        expires_at=1.0,
        output_file="o",
        error_file="e",
        state=state,
    )


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("following", get_args(State))
def test_a_job_moves_as_the_table_says_and_not_otherwise(state: State, following: State) -> None:
    if following in FOLLOWING[state]:
        assert moved(job(state), following, 7.0).at == {following: 7.0}
    else:
        with pytest.raises(ValueError, match="cannot be"):
            moved(job(state), following, 7.0)
    assert (not FOLLOWING[state]) is (state in OVER)


@given(st.sets(st.integers(1, 200_000)))
def test_done_knows_exactly_what_it_was_told(numbers: set[int]) -> None:
    done = Done()
    for number in [*numbers, *numbers]:
        done.add(number)
    assert done.count == len(numbers)
    assert all(number in done for number in numbers)
    assert not any(number + 1 in done for number in numbers if number + 1 not in numbers)


@given(st.lists(st.text(max_size=3)))
def test_a_name_that_comes_twice_is_always_suspect(names: list[str]) -> None:
    suspects = Suspects(1)
    for name in names:
        suspects.add(name)
    assert {name for name in names if names.count(name) > 1} <= suspects.names


def read(path: Path, seen: Fingerprint | None = None) -> list[Line]:
    async def main() -> list[Line]:
        with Lines(path, seen) as lines:
            return [line async for block in lines.blocks() for line in block]

    return asyncio.run(main())


@settings(deadline=None)
@given(data=st.lists(st.sampled_from([b"a", b"bc", b"\n", b" ", b"\r\n"])).map(b"".join))
def test_lines_come_with_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(data)
    before, lines_module.BLOCK_BYTES = lines_module.BLOCK_BYTES, 3
    try:
        found = read(path)
    finally:
        lines_module.BLOCK_BYTES = before
    texts = data.split(b"\n")
    assert found == [Line(n, text) for n, text in enumerate(texts, 1) if text.strip()]


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    with Lines(path) as lines:
        seen = lines.seen
    path.write_bytes(b"one\nTWO\nthree\n")
    with pytest.raises(BadInput, match="changed while it was read, about line 1"):
        read(path, seen)
    path.unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        read(path)


def test_a_line_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES", 10)
    path = tmp_path / "file"
    path.write_bytes(b"short\n" + b"x" * 11)
    with pytest.raises(BadInput, match="Line 2 is longer than 10 bytes"):
        read(path)


def test_what_is_busy_is_waited_for_and_what_fails_is_tried_so_often() -> None:
    patient = Tries()
    busy = [patient.next_s(HeadraceError(code, ""), 1.0) for code in sorted(BUSY) for _ in range(9)]
    assert all(pause is not None and 0 < pause <= LONGEST_S for pause in busy)
    assert busy[:3] == [0.5, 1.0, 2.0]
    for code in (Code.ENGINE_FAILED, Code.GENERATION_TIMEOUT):
        failing = Tries()
        pauses = [failing.next_s(HeadraceError(code, ""), 0.0) for _ in range(MOST_TRIES)]
        assert pauses[-1] is None
        assert None not in pauses[:-1]
    assert Tries().next_s(HeadraceError(Code.INVALID_REQUEST, ""), 0.0) is None
    told = HeadraceError(Code.RATE_LIMITED, "", retry_after_s=90.0)
    assert Tries().next_s(told, 0.0) == 90.0
    forever = HeadraceError(Code.RATE_LIMITED, "", retry_after_s=1e9)
    assert Tries().next_s(forever, 0.0) == MOST_TOLD_S


def test_a_room_lets_in_as_many_as_it_has_places() -> None:
    async def main() -> None:
        slots = 2
        room = Room(lambda: slots)
        for _ in range(2):
            await room.enter()
        waiting = [asyncio.ensure_future(room.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        room.leave()
        await waiting[1]
        assert not waiting[2].done()
        slots = 8
        room.leave()
        await waiting[2]
        assert room.inside == 2

    asyncio.run(main())
