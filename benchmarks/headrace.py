"""Headrace as the benchmarks run it: everything switched on.

SQLite store, two hooks (card numbers redacted, an audit file written), an API key, a bounded queue,
metrics with the operations port.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.child import GATEWAY_CORE, Child, free_port
from benchmarks.peers import Gateway

KEY = "sk-benchmark"
REPOSITORY = Path(__file__).parents[1]

SERVER = """
[server]
port = {port}
ops_port = {ops_port}
api_key = ["{key}"]
max_connections = 20000
log_level = "warning"
state_dir = "{folder}/state"
{grpc}

[limits]
max_queue = 20000
total_timeout_s = 600
queue_timeout_s = 600

[store]
url = "sqlite:{folder}/headrace.db"
keep_generations = 10000000
keep_bytes = 8589934592
"""
HOOKS = """
[[hooks]]
class = "headrace.streams.redact:Redact"

[[hooks]]
class = "headrace.streams.audit:Audit"
path = "{folder}/audit.jsonl"
"""
MOCK_MODEL = """
[[models]]
name = "mock"
engine = "openai"
slots = 20000

[[models.replicas]]
url = "http://127.0.0.1:{mock_port}/v1"
"""


class Server:
    """A Headrace server that can be killed and started again on the same state."""

    def __init__(
        self,
        folder: Path,
        models: str,
        core: int | str = GATEWAY_CORE,
        hooks: str = HOOKS,
        grpc_port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.ops_port = free_port(), free_port()
        self._folder = folder
        self._core = core
        self._environment = environment
        self._config = folder / f"headrace-{self.port}.toml"
        grpc = "" if grpc_port is None else f"grpc_port = {grpc_port}"
        text = SERVER.format(
            port=self.port, ops_port=self.ops_port, key=KEY, folder=folder, grpc=grpc
        )
        self._config.write_text(text + hooks.format(folder=folder) + models)
        self.child = self.start()

    def start(self) -> Child:
        """Start the process; returns before it answers."""
        command = [sys.executable, "-m", "headrace", "serve", "--config", str(self._config)]
        log = self._folder / "headrace.log"
        self.child = Child(command, log, self._core, self._environment, REPOSITORY)
        return self.child

    def await_ready(self, timeout_s: float = 60) -> None:
        """Wait until a model can serve."""
        self.child.await_http(self.port, "/readyz", timeout_s)

    @property
    def gateway(self) -> Gateway:
        """As the benchmarks address it. ``recover``: kill -9, then start it again on the same state."""
        headers = (f"Authorization: Bearer {KEY}",)
        return Gateway("Headrace", self.child, self.port, headers, self._crash)

    def _crash(self) -> Gateway:
        self.child.kill()
        self.start()
        self.await_ready()
        return self.gateway


def headrace(folder: Path, mock_port: int) -> Gateway:
    """In front of the mock engine."""
    home = folder / "headrace"
    home.mkdir()
    server = Server(home, MOCK_MODEL.format(mock_port=mock_port))
    try:
        server.await_ready()
    except RuntimeError:
        server.child.stop()
        raise
    return server.gateway
