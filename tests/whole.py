"""The whole server in this process, as a settings file configures it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.app import App
from headrace.cli.options import loaded

BASE = """
[server]
port = 0
state_dir = "{folder}"
shutdown_grace_s = 0
{server}

[store]
url = "sqlite:"

[[models]]
name = "echo"
engine = "scripted"
script = "{folder}/script.json"
"""
SCRIPTS = [
    {"when": "hang", "tokens": ["a", "b"], "hang_after": 1},
    {"when": "slowly", "tokens": ["a "] * 100, "delay_ms": 30},
    {"tokens": ["Hel", "lo"]},
]


class Whole:
    """``file``: its settings, as ``write`` wrote them last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "headrace.toml"
        folder.mkdir(exist_ok=True)
        (folder / "script.json").write_text(json.dumps({"scripts": SCRIPTS}))

    def write(self, server: str = "", more: str = "") -> Path:
        """``server``: further lines of that table; ``more``: further tables."""
        self.file.write_text(BASE.format(folder=self.folder, server=server) + more)
        return self.file

    @asynccontextmanager
    async def running(self, server: str = "", more: str = "") -> AsyncIterator[App]:
        """The server, its model loaded, until the block ends."""
        self.write(server, more)

        def read() -> object:
            return loaded(str(self.file), {}).settings

        app = App(read(), read)  # type: ignore[arg-type]
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        app.topics.subscribe("model", lambda news: ready.done() or ready.set_result(None))
        serving = asyncio.create_task(app.run())
        await ready
        try:
            yield app
        finally:
            app.stopping.set()
            assert await serving == 0
