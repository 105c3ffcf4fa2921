"""A real process that appends is killed with ``kill -9`` at random moments; what it had shown is there afterwards.

``HEADRACE_STORE_KILLS`` says how often (default 20); ``HEADRACE_STORE_SEED`` where the seeds begin.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import read_all
from tests.streams.writer import text_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]
KILLS = int(os.environ.get("HEADRACE_STORE_KILLS", "20"))
SEED = int(os.environ.get("HEADRACE_STORE_SEED", "1000"))


def write_and_kill(path: Path, seed: int, *how: str) -> dict[str, dict[int, str]]:
    """The text of every event that the process had shown, by log and seq, when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.streams.writer", str(path), str(seed), *how],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    # Counted in what it shows, not in time: a slow machine is killed at the same places.
    sizes = (1, 1_000, 10_000, 100_000) if how else (1, 1_000, 100_000, 1_000_000, 3_000_000)
    left = random.Random(seed).choice(sizes)
    data = bytearray()
    while len(data) <= left and (chunk := os.read(process.stdout.fileno(), 65536)):
        data += chunk
    process.send_signal(signal.SIGKILL)
    data += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    shown: dict[str, dict[int, str]] = {}
    for line in data[: data.rfind(b"\n") + 1].decode().splitlines():
        id, seq, text = line.split()
        assert int(seq) not in shown.setdefault(id, {})
        shown[id][int(seq)] = text
    return shown


@pytest.mark.timeout(60 + 5 * KILLS)
@pytest.mark.parametrize("how", [(), ("alike",)])
def test_every_event_that_was_shown_before_a_kill_is_read_back(
    run: Run, tmp_path: Path, how: tuple[str, ...]
) -> None:
    path = tmp_path / "headrace.db"
    all_shown: dict[str, dict[int, str]] = {}
    for seed in range(SEED, SEED + KILLS):
        shown = write_and_kill(path, seed, *how)
        assert shown, f"seed {seed}"
        for id, texts in shown.items():
            all_shown.setdefault(id, {}).update(texts)
        ids = list(all_shown) if seed == SEED + KILLS - 1 else list(shown)
        run(check(path, {id: all_shown[id] for id in ids}, seed))


async def check(path: Path, shown: dict[str, dict[int, str]], seed: int) -> None:
    store = SqliteStore(path)
    unfinished = {one.header.id: one for one in await store.open()}
    for id, texts in shown.items():
        events = await read_all(store, id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), (seed, id)
        read_back = {event.seq: text_of(event) for event in events}
        assert texts.items() <= read_back.items(), (seed, id)
        if id in unfinished:
            assert unfinished[id].events == events, (seed, id)
            raw = [delta.text for delta in unfinished[id].raw]
            assert raw == [str(event.seq) for event in events], (seed, id)
        else:
            assert text_of(events[-1]) == "end", (seed, id)
    await store.abandon()
