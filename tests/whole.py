"""The whole server in this process, as a settings file configures it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.app import App
from headrace.cli.options import loaded

ECHO = """
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


def settings_file(
    folder: Path, more: str, *, server: str = "", store: str = "memory:", grace_s: float = 0.0
) -> Path:
    """Of a server on any free port, with its state in that folder. ``server``: further lines of that table; ``more``:
    further tables, in which ``{folder}`` is the folder."""
    file = folder / "headrace.toml"
    first = f'[server]\nport = 0\nstate_dir = "{folder}"\nshutdown_grace_s = {grace_s}\n{server}\n'
    tables = f'[store]\nurl = "{store}"\n' + more.replace("{folder}", str(folder))
    file.write_text(first + tables)
    return file


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[None]:
    """It runs, a model loaded, until the block ends."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    app.topics.subscribe("model", lambda news: ready.done() or ready.set_result(None))
    running = asyncio.create_task(app.run())
    await ready
    try:
        yield
    finally:
        app.stopping.set()
        assert await running == 0


class Whole:
    """``file``: its settings, as ``write`` wrote them last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "headrace.toml"
        folder.mkdir(exist_ok=True)
        (folder / "script.json").write_text(json.dumps({"scripts": SCRIPTS}))

    def write(self, server: str = "", more: str = "") -> Path:
        """``server``: further lines of that table; ``more``: further tables."""
        return settings_file(self.folder, ECHO + more, server=server, store="sqlite:")

    @asynccontextmanager
    async def running(self, server: str = "", more: str = "") -> AsyncIterator[App]:
        """The server, its model loaded, until the block ends."""
        self.write(server, more)

        def read() -> object:
            return loaded(str(self.file), {}).settings

        app = App(read(), read)  # type: ignore[arg-type]
        async with serving(app):
            yield app
