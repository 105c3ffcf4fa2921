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
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parents[2]
START_S = 60.0


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

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.kill.falling_server", str(self.folder)]
        command += ["serve", "--config", str(self.config)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
        self.wait_alive()

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

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
    """An independent client process and what it wrote down; when it was killed, its successor."""

    def __init__(
        self, server: Server, name: str, form: str, body: dict[str, Any], plug: int = 0
    ) -> None:
        self.form = form
        self.path = server.folder / f"{name}.jsonl"
        client = str(REPOSITORY / "tests" / "kill" / "client.py")
        self.command = [sys.executable, client, server.url, form, str(self.path)]
        self.command += [json.dumps(body), str(plug)]
        self.process = subprocess.Popen(self.command)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def succeed(self) -> None:
        """Another process reads on where the killed one was."""
        self.process.wait()
        Path(f"{self.path}.torn").unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        if self.alive:
            self.process.kill()
        self.process.wait()

    def tear(self, timeout_s: float) -> bool:
        """Have it stop in the middle of a character; whether it got there."""
        torn = Path(f"{self.path}.torn")
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + timeout_s
        while not torn.exists() and self.alive and time.monotonic() < deadline:
            time.sleep(0.001)
        return torn.exists()

    @property
    def generation(self) -> str | None:
        """Once it knows; None before."""
        return next((row["generation"] for row in self.rows() if "generation" in row), None)

    @property
    def state(self) -> str:
        """``""`` before the first event, ``over`` after the last; else what the last event shows."""
        rows = [row for row in self.rows() if "data" in row]
        if not rows:
            return ""
        last = rows[-1]
        if last["event"] in ("finish", "error") or last["data"] == "[DONE]":
            return "over"
        if last["data"].startswith('{"error"'):
            return "over"
        if last["event"] != "progress":
            return "decode"
        phase: str = json.loads(last["data"])["payload"]["phase"]
        return phase

    def rows(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait(self, timeout_s: float) -> None:
        """Until it has everything; who does not get it in time is killed, and lacks it then."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()


class Answer(NamedTuple):
    """What an answer has to be, however often it was disturbed."""

    text: str
    tokens: int


def faults(witness: Witness, server: Server, expected: Answer) -> list[str]:
    """What is wrong with what a witness saw, against the log and the answer that had to come."""
    rows = witness.rows()
    generations = [row["generation"] for row in rows if "generation" in row]
    strange = [row for row in rows if "gave_up" in row or "status" in row]
    if strange or len(generations) != 1:
        return [f"{witness.path.name}: {strange or 'no generation'} {rows[-2:]}"]
    log = server.log_of(generations[0])
    found = log_faults(log, expected)
    seen = [row for row in rows if "id" in row]
    ids = [int(row["id"]) for row in seen]
    if ids != sorted(set(ids)):
        found.append("an event came twice or out of order")
    if witness.form == "native" and ids != [event["seq"] for event in log]:
        found.append(f"saw {len(ids)} events of {len(log)}")
    if witness.form == "native" and [json.loads(row["data"]) for row in seen] != log:
        found.append("an event reads differently afterwards")
    if witness.form == "openai" and _openai_text(rows) != log_text(log):
        found.append("the text that the client saw is not the log's")
    return [f"{witness.path.name} ({generations[0]}): {fault}" for fault in found]


def log_faults(log: Sequence[dict[str, Any]], expected: Answer) -> list[str]:
    found = []
    if [event["seq"] for event in log] != list(range(1, len(log) + 1)):
        found.append("the log has holes")
    ends = [event["type"] for event in log if event["type"] in ("finish", "error")]
    if ends != ["finish"] or log[-1]["type"] != "finish":
        found.append(f"the log ends with {ends}: {log[-1]}")
    else:
        tokens = log[-1]["payload"]["usage"]["completion_tokens"]
        if tokens != expected.tokens:
            found.append(f"it counts {tokens} tokens, expected {expected.tokens}")
    if log_text(log) != expected.text:
        found.append(f"the text is {log_text(log)!r}, expected {expected.text!r}")
    return found


def log_text(log: Sequence[dict[str, Any]]) -> str:
    return "".join(event["payload"]["text"] for event in log if event["type"] == "token")


def _openai_text(rows: Sequence[dict[str, Any]]) -> str:
    chunks = [json.loads(row["data"]) for row in rows if row.get("data", "").startswith('{"id"')]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(
        choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        for choice in choices
    )
