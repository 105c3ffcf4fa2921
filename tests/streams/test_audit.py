"""``Audit``: one JSON line when a generation starts and one when it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.event import Error, Finish, Usage
from headrace.domain.request import Caller, Request
from headrace.streams.audit import Audit
from headrace.streams.hook import HookContext
from tests.streams.parts import flushed

Run = Callable[[Coroutine[Any, Any, Any]], Any]
END = Finish(0, 0.0, ("stop",), Usage(3, 4))


def context(id: str = "gen_a", replaying: bool = False) -> HookContext:
    caller = Caller("t", "req_1", session_id="s")
    return HookContext(id, Request("m", "chat"), caller, replaying=replaying)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_start_and_end_are_written_with_who_and_how_and_no_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"

    async def main() -> None:
        audit = Audit(str(path), clock=lambda: 7.5)
        audit.on_start(context())
        audit.on_finish(context(), END)
        audit.on_finish(context("gen_b"), Error(0, 0.0, "cancelled", "The client left."))
        await flushed()
        audit.close()

    run(main())
    who = {"at": 7.5, "tenant": "t", "session_id": "s", "request_id": "req_1"}
    assert lines(path) == [
        {**who, "generation": "gen_a", "event": "start", "model": "m", "choices": 1},
        {**who, "generation": "gen_a", "event": "finish", "reasons": ["stop"],
         "prompt_tokens": 3, "completion_tokens": 4},
        {**who, "generation": "gen_b", "event": "error", "code": "cancelled",
         "message": "The client left."},
    ]  # fmt: skip
    assert path.stat().st_mode & 0o077 == 0


def test_a_replay_after_a_restart_writes_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    async def main() -> None:
        audit = Audit(str(path))
        audit.on_start(context(replaying=True))
        audit.on_finish(context(replaying=True), END)
        await flushed()
        audit.close()

    run(main())
    assert path.read_text() == ""


def test_the_file_rotates_by_size_and_only_some_old_ones_stay(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    async def main() -> None:
        audit = Audit(str(path), max_bytes=400, keep_files=2)
        for number in range(20):
            audit.on_start(context(f"gen_{number}"))
            await flushed()
        audit.close()

    run(main())
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    kept = [line["generation"] for name in reversed(names) for line in lines(tmp_path / name)]
    assert kept == [f"gen_{number}" for number in range(20 - len(kept), 20)]


def test_when_the_file_cannot_be_written_no_further_generation_starts(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        audit = Audit("/dev/full")
        audit.on_start(context())
        await flushed()
        with pytest.raises(OSError, match=os.strerror(28)):
            audit.on_start(context("gen_b"))
        with pytest.raises(OSError, match=os.strerror(28)):
            audit.on_start(context("gen_c"))
        audit.close()

    run(main())
    assert "1 audit lines were not written" in caplog.text
