"""Real clients, each in its own process, in front of a real server with a script for a model."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

COUNT = [f"{number} " for number in range(1, 41)]
CALL = [
    {"text": "", "tool_calls": [{"id": "call_1", "name": "weather", "arguments": ""}]},
    {"text": "", "tool_calls": [{"arguments": '{"city":'}]},
    {"text": "", "tool_calls": [{"arguments": '"Paris"}'}]},
]
SCRIPTS: list[dict[str, Any]] = [
    {"when": "sunny", "tokens": ["It is ", "sunny."]},
    {"when": "weather?", "tokens": CALL, "reason": "tool_calls"},
    {"when": "hang", "tokens": COUNT, "hang_after": 5},
    {"when": "slowly", "tokens": COUNT, "delay_ms": 150},
    {"when": "overload", "refuse": "engine_unavailable"},
    {"when": "break", "tokens": COUNT, "fail_after": 3, "fail_code": "internal"},
    {"tokens": COUNT, "delay_ms": 25},
]


class Server:
    """``headrace serve`` on one port and one state folder, however often it dies."""

    def __init__(self, folder: Path, settings: str = "", model: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        script = folder / "script.json"
        script.write_text(json.dumps({"scripts": SCRIPTS}))
        scripted = f'engine = "scripted"\nscript = "{script}"'
        self._config = folder / "headrace.toml"
        self._config.write_text(
            f'[server]\nport = {port}\nstate_dir = "{folder}"\n{settings}\n'
            f'[[models]]\nname = "m"\n{model or scripted}\n'
        )
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it listens and its model serves."""
        command = [sys.executable, "-m", "headrace", "serve", "--config", str(self._config)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr
        self._process = process
        for line in process.stderr:
            if b"m serves" in line:
                return
        raise AssertionError("the server ended")

    def end(self, by: signal.Signals = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.send_signal(by)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """``server(settings)`` starts one; ``model`` instead of the scripted one."""
    started = []

    def start(settings: str = "", model: str = "") -> Server:
        made = Server(tmp_path, settings, model)
        started.append(made)
        made.start()
        return made

    yield start
    for made in started:
        made.end()


@pytest.fixture
def ended() -> Callable[..., dict[str, Any]]:
    """``ended(url, generation)``: its state, once it has ended."""

    def ended(url: str, generation: str, **options: Any) -> dict[str, Any]:
        path = f"{url}/v1/generations/{generation}"
        with httpx.stream("GET", f"{path}/events", timeout=30, **options) as events:
            events.read()
        found: dict[str, Any] = httpx.get(path, **options).json()
        return found

    return ended


def program(*names: str) -> str:
    """The first of these that is installed; without one the test is skipped, with the reason."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed")


@pytest.fixture(scope="session")
def node() -> str:
    return program("node", "nodejs")


@pytest.fixture(scope="session")
def chromium() -> str:
    return program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The folder where ``make browser-test`` has installed what ``package.json`` names."""
    folder = Path(__file__).parents[2] / "build" / "clients"
    if not (folder / "node_modules" / "openai").is_dir():
        pytest.skip("the OpenAI SDK for JavaScript is not installed: make browser-test does it")
    return folder
