"""The native tools: a mock engine and load generators, compiled when first used."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.child import LOAD_CORE, Child

SOURCES = Path(__file__).parent / "native"
BUILD = Path(__file__).parent / "build"
"""Ignored by git; so is everything else that a benchmark writes there."""

Report = dict[str, Any]
"""What ``native/load.c`` prints; times in milliseconds."""


def built(name: str) -> str:
    """Path of a tool, compiled with the system's C compiler if it is older than its source."""
    source, binary = SOURCES / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in (source, *SOURCES.glob("*.h")))
    if not binary.exists() or binary.stat().st_mtime < newest:
        BUILD.mkdir(exist_ok=True)
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return str(binary)


class Mock:
    """A running mock engine. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        log = folder / "mock.log"
        self.child = Child([built("mock"), "0"], log, LOAD_CORE)
        self.port = self._announced(log)

    def _announced(self, log: Path) -> int:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            words = log.read_text().split()
            if len(words) >= 2:
                return int(words[1])
            time.sleep(0.01)
        raise RuntimeError("the mock engine did not start")

    def __enter__(self) -> Mock:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(
        self, *, first_ms: float = 0, gap_ms: float = 0, tokens: int = 64, body: int = 1024
    ) -> None:
        """How it answers from now on; its counts begin again."""
        self.get(f"/config?first_ms={first_ms}&gap_ms={gap_ms}&tokens={tokens}&body={body}")

    def get(self, path: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


def chat_body(*, stream: bool, tokens: int, model: str = "mock") -> dict[str, Any]:
    """A chat request of about 0.9 KB, as small real ones are."""
    system = (
        "You are an assistant who answers in short, plain sentences and says so when unsure. " * 3
    )
    user = "Tell the story of a miller whose wheel stood still until the channel was dug. " * 6
    return {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": tokens,
        "temperature": 0.7,
        "stream": stream,
    }


class Running:
    """A load generator that runs; :meth:`result` waits for its report."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), *command], stdout=subprocess.PIPE
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Report:
        output, _ = self._process.communicate()
        report: Report = json.loads(output)
        return report


class Load(Running):
    """Asks over HTTP/1.1. The bodies are used in turn."""

    def __init__(
        self,
        folder: Path,
        port: int,
        bodies: Iterable[dict[str, Any]],
        headers: Sequence[str],
        options: Mapping[str, float],
        path: str = "/v1/chat/completions",
        record: Path | None = None,
    ) -> None:
        file = folder / "bodies.jsonl"
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        command = _command("load", port, path, file, headers, options)
        if record is not None:
            command += ["--record", str(record)]
        super().__init__(command)


class CallLoad(Running):
    """Makes calls of gRPC or gRPC-Web over HTTP/2, each with this one message. ``stamped``: the mock's stamps
    come back in the messages; else each message is a token."""

    def __init__(
        self,
        folder: Path,
        port: int,
        message: bytes,
        headers: Sequence[str],
        options: Mapping[str, float],
        path: str,
        *,
        tokens: int,
        stamped: bool = True,
    ) -> None:
        file = folder / "message.bin"
        file.write_bytes(message)
        command = _command("load_h2", port, path, file, headers, options)
        command += ["--expect", str(tokens)]
        if not stamped:
            command.append("--unstamped")
        super().__init__(command)


def _command(
    tool: str,
    port: int,
    path: str,
    body: Path,
    headers: Sequence[str],
    options: Mapping[str, float],
) -> list[str]:
    command = [built(tool), "--port", str(port), "--body", str(body), "--path", path]
    for header in headers:
        command += ["--header", header]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command
