"""A Headrace server with the embedded engine that also tells where the engine's process listens.

Run by the benchmarks: ``python -m benchmarks.embedded CONFIG FILE`` serves as ``headrace serve`` does and,
once the model is ready, writes where the engine listens, what it wants to see, its process id and its model
file to FILE. Its key is made anew for each process and otherwise known to nobody: only a program that *is*
the server can tell it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.child import Child
from benchmarks.headrace import REPOSITORY, Server


class Endpoint(NamedTuple):
    """The engine's process."""

    port: int
    authorization: str
    pid: int
    model_path: str

    @property
    def headers(self) -> tuple[str, ...]:
        """What the engine wants to see. It keeps a thread a connection, so each serves one request."""
        return (f"Authorization: {self.authorization}", "Connection: close")


class EmbeddedServer(Server):
    """Headrace with the embedded model, all cores, and its engine's endpoint."""

    def __init__(self, folder: Path) -> None:
        self._endpoint_file = folder / "endpoint.json"
        super().__init__(folder, models="")

    def start(self) -> Child:
        command = [sys.executable, "-m", "benchmarks.embedded"]
        command += [str(self._config), str(self._endpoint_file)]
        log = self._folder / "headrace.log"
        self.child = Child(command, log, core="0-1", cwd=REPOSITORY)
        return self.child

    def endpoint(self, timeout_s: float = 300) -> Endpoint:
        """Of the engine; waits until the model is ready."""
        self.await_ready(timeout_s)
        while not self._endpoint_file.exists():
            time.sleep(0.02)
        return Endpoint(*json.loads(self._endpoint_file.read_text()))


async def _tell(app: object, file: Path) -> None:
    from headrace.engines.llama import LlamaEngine
    from headrace.local_engine import LocalEngine

    engine: object = app.flows[0].model.replicas[0].engine  # type: ignore[attr-defined]
    while True:
        inner = engine.loaded if isinstance(engine, LocalEngine) else engine
        if isinstance(inner, LlamaEngine) and inner.health()[0] == "ready" and inner.pid:
            break
        await asyncio.sleep(0.05)
    asked = inner.endpoint
    port = urlsplit(asked.url).port or 0
    told = Endpoint(port, asked.headers["authorization"], inner.pid, inner.model_path)
    _write_private(file, json.dumps(told))


def _write_private(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    with open(new, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        output.write(text)
    new.rename(file)


def main() -> int:
    from headrace.app import App, serve
    from headrace.settings.loading import load

    config, file = sys.argv[1], Path(sys.argv[2])
    telling: list[asyncio.Task[None]] = []

    def announce(app: App) -> None:
        telling.append(asyncio.get_running_loop().create_task(_tell(app, file)))

    return serve(load(config).settings, announce)


if __name__ == "__main__":
    sys.exit(main())
