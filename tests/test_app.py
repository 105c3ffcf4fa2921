"""The whole server in one process: what it builds tells who listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headrace.app import App
from headrace.cli.options import loaded
from tests.whole import settings_file

MODEL = """
[[models]]
name = "echo"
engine = "scripted"
"""


def test_topics_tell_when_a_model_is_loaded_and_unloaded(tmp_path: Path) -> None:
    config = settings_file(tmp_path, MODEL)
    told: list[tuple[str, str]] = []
    scrapes: list[bytes] = []

    async def main() -> None:
        app = App(loaded(str(config), {}).settings)

        def hear(news) -> None:
            told.append((news["model"], news["state"]))
            scrapes.append(app.exposition.render("text/plain")[1])
            app.stopping.set()

        app.topics.subscribe("model", hear)
        async with asyncio.timeout(20):
            assert await app.run() == 0

    asyncio.run(main())
    assert told == [("echo", "loaded"), ("echo", "unloaded")]
    for number in (b"places", b"in_use", b"refusals_total"):
        line = b'headrace_replica_%b{model_name="echo",replica="echo"} ' % number
        value = float(scrapes[0].split(line)[1].split(b"\n")[0])
        assert value == (64 if number == b"places" else 0)
