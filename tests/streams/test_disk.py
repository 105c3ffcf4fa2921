from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.domain.event import Finish, Token, Usage
from headrace.domain.request import Caller, Message, Request
from headrace.streams.disk import log_bytes
from headrace.streams.hub import Hub
from headrace.streams.sqlite import SqliteStore
from headrace.streams.store import LogHeader

BIG = "x" * 4000


def test_what_was_appended_is_counted_in_the_journal_and_in_the_database(
    run: Callable[[Any], Any], tmp_path: Path
) -> None:
    path = tmp_path / "some" / "headrace.db"

    async def main() -> None:
        assert log_bytes(path) == 0
        store = SqliteStore(path)
        await store.open()
        (tmp_path / "some" / "engine.log").write_text(BIG)
        empty = log_bytes(path)
        request = Request("m", "chat", (Message("user", "hi"),))
        log = Hub(store).create(LogHeader("gen_1", 0.0, "m", request, Caller()))
        for seq in range(1, 401):
            log.append([Token(seq, 0.0, f"{seq}{BIG}")])
        log.append([Finish(401, 0.0, ("stop",), Usage(1, 400))])
        assert log.ended
        await store.checkpoint()
        # The journal has its size from the start, and so has the beginning of SQLite's log.
        assert log_bytes(path) >= empty + 200 * len(BIG)
        await store.close()
        left = sum(file.stat().st_size for file in path.parent.glob("headrace.db*"))
        assert log_bytes(path) == left >= 400 * len(BIG)

    run(main())
