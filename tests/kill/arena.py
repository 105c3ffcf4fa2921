"""What the kill test needs: a server that is killed and started again, clients, and the comparison."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """``headrace serve --config FILE`` on one port and one state folder, however often it dies."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "headrace.toml"
        head = f'[server]\nport = {self.port}\nstate_dir = "{folder / "state"}"\n'
        self.config.write_text(head + config, encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, falls_after: int = 0) -> None:
        arguments = [sys.executable, str(HERE / "falling_server.py"), str(falls_after)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*arguments, "serve", "--config", str(self.config)], stdout=log, stderr=log
            )
        self.wait_alive()

    def wait_alive(self) -> None:
        """Until it answers, or has died already."""
        deadline = time.monotonic() + START_S
        while self.process is not None and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "/livez", timeout=2).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        if self.process is not None:
            if self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            body: bytes = response.read()
            return body

    def log_of(self, generation: str) -> list[dict[str, Any]]:
        """The whole log, read anew by somebody who was never there."""
        body = self.get(f"/v1/generations/{generation}/events?after=0").decode()
        blocks = [block for block in body.split("\n\n") if "data:" in block]
        return [json.loads(block.split("data: ", 1)[1]) for block in blocks]

    def text_of(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")


class Witness:
    """An independent client process and what it wrote down."""

    def __init__(
        self, server: Server, name: str, form: str, body: dict[str, Any], plug: int
    ) -> None:
        self.form = form
        self.path = server.folder / f"{name}.jsonl"
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "client.py"), server.url, form, str(self.path)),
                *(json.dumps(body), str(plug)),
            ]
        )

    def rows(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait(self, timeout_s: float) -> None:
        self.process.wait(timeout_s)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def faults(witness: Witness, server: Server, expected: str | None) -> list[str]:
    """What is wrong with what a witness saw, against the log and the text that had to come."""
    rows = witness.rows()
    generations = [row["generation"] for row in rows if "generation" in row]
    strange = [row for row in rows if "gave_up" in row or "status" in row]
    if strange or len(generations) != 1:
        return [f"{witness.path.name}: {strange or 'no generation'} {rows[-2:]}"]
    log = server.log_of(generations[0])
    found = list(log_faults(log, expected))
    seen = [row for row in rows if "id" in row]
    ids = [int(row["id"]) for row in seen]
    if ids != sorted(set(ids)):
        found.append("an event came twice or out of order")
    if witness.form == "native" and ids != [event["seq"] for event in log]:
        found.append(f"saw {len(ids)} events of {len(log)}")
    if witness.form == "native" and [json.loads(row["data"]) for row in seen] != log:
        found.append("an event reads differently afterwards")
    if witness.form == "openai" and _openai_text(rows) != _log_text(log):
        found.append("the text that the client saw is not the log's")
    return [f"{witness.path.name} ({generations[0]}): {fault}" for fault in found]


def log_faults(log: Sequence[dict[str, Any]], expected: str | None) -> Sequence[str]:
    found = []
    if [event["seq"] for event in log] != list(range(1, len(log) + 1)):
        found.append("the log has holes")
    ends = [event["type"] for event in log if event["type"] in ("finish", "error")]
    if ends != ["finish"] or log[-1]["type"] != "finish":
        found.append(f"the log ends with {ends}: {log[-1]}")
    if expected is not None and _log_text(log) != expected:
        found.append(f"the text is {_log_text(log)!r}, expected {expected!r}")
    return found


def _log_text(log: Sequence[dict[str, Any]]) -> str:
    return "".join(event["payload"]["text"] for event in log if event["type"] == "token")


def _openai_text(rows: Sequence[dict[str, Any]]) -> str:
    chunks = [json.loads(row["data"]) for row in rows if row.get("data", "").startswith('{"id"')]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
