"""What a storm needs: two servers that can be looked into from outside, and a crowd of clients.

The server under test has a scripted engine of its own and, as an OpenAI upstream, a second server with
another one: so what its clients' leaving frees can be seen on both sides.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from operator import le
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.kill.arena import free_port
from tests.tracing.arena import collecting

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0
MID_STREAM = 2
"""Events that each client has read before all leave."""

SCRIPT = """
[[scripts]]
tokens = ["The ", "mill ", "turns ", "slowly. "]
repeat = 100
delay_ms = 250
"""


@contextmanager
def traced(on: bool) -> Iterator[Mapping[str, str]]:
    """The environment of a server that records everything, for a collector in this process; or none."""
    if not on:
        yield {}
        return
    with collecting() as collector:
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert collector.spans


class Used(NamedTuple):
    """What a server uses. ``running``: generations admitted that have not ended."""

    descriptors: int
    tasks: int
    slots: int
    waiting: int
    running: int
    connections: int


class Watched:
    """``tests.storm.watched_server`` in a process of its own."""

    def __init__(
        self,
        folder: Path,
        name: str,
        models: str,
        *options: str,
        script: str = SCRIPT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.ops_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._answer = folder / f"{name}.answer"
        said = folder / f"{name}.script.toml"
        said.write_text(f"slots = 4096\n{script}", encoding="utf-8")
        config = folder / f"{name}.toml"
        config.write_text(
            f"[server]\nport = {self.port}\nops_port = {self.ops_port}\n"
            f'state_dir = "{folder / name}"\n' + models.replace("SCRIPT", str(said)),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "tests.storm.watched_server"]
        command += [str(config), str(self._answer), *options]
        with (folder / f"{name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=os.environ | (environment or {}),
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._operations("/readyz")
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def wait_serves(self, model: str) -> None:
        """Until this model answers."""
        deadline = time.monotonic() + PATIENCE_S
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            headers = {"content-type": "application/json"}
            asked = body[:-1] + ', "stream": true}'
            connection.request("POST", "/v1/chat/completions", asked, headers)
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{model} does not serve: {status}")
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def used(self) -> Used:
        metrics = self._metrics()
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        admitted = metrics.get("headrace_requests_total", 0)
        ended = metrics.get("vllm:request_success_total", 0) + metrics.get(
            "headrace_errors_total", 0
        )
        return Used(
            descriptors,
            int(self._ask(signal.SIGUSR2)),
            metrics["vllm:num_requests_running"],
            metrics["vllm:num_requests_waiting"],
            admitted - ended,
            metrics["headrace_connections"],
        )

    def memory_kb(self) -> int:
        """Resident memory without mapped files: the journal's pages are the system's to take back, and
        bounded by its size."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def wait_used(self, most: Used, timeout_s: float) -> Used:
        """What it uses once that is no more than ``most``, or at last."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.used()
            if all(map(le, found, most)) or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def _metrics(self) -> dict[str, int]:
        """Sums over all labels. Read through the operations port: no connection of the front."""
        sums: dict[str, int] = {}
        for family in text_string_to_metric_families(self._operations("/metrics")):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0) + int(sample.value)
        return sums

    def _operations(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.ops_port}{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            body: bytes = response.read()
            return body.decode()

    def garbage(self) -> dict[str, int]:
        """Objects that only reference cycles kept, by type; gone now."""
        found: dict[str, int] = self._ask(signal.SIGUSR1)
        return found

    def _ask(self, question: signal.Signals) -> Any:
        self._answer.unlink(missing_ok=True)
        self.process.send_signal(question)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answer.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not answer a signal")
            time.sleep(0.001)
        return json.loads(self._answer.read_text())


class Client:
    """One stream, without blocking."""

    __slots__ = ("_request", "events", "head", "socket")

    def __init__(self, port: int, model: str) -> None:
        body = b'{"model":"%b","stream":true,"messages":[{"role":"user","content":"mill"}]}'
        body %= model.encode()
        self._request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.events = 0
        self.head = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))

    def send(self) -> None:
        assert self.socket.send(self._request) == len(self._request)

    def receive(self) -> bool:
        """Take what is there; False once the server has closed."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        self.head = self.head or data[:100]
        self.events += data.count(b"\ndata: ")
        return bool(data)

    def leave_with_reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def leave_with_fin(self) -> None:
        """The kernel sends FIN and not RST if nothing is unread."""
        self.receive()
        self.socket.close()


class Crowd:
    """So many clients at once, in turn of each model."""

    def __init__(self, port: int, models: Sequence[str], count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.clients = [Client(port, models[at % len(models)]) for at in range(count)]
        for client in self.clients:
            self._selector.register(client.socket, selectors.EVENT_WRITE, client)

    def until_mid_stream(self) -> list[str]:
        """Until each has read some events; what is wrong with those that cannot."""
        missing = len(self.clients)
        deadline = time.monotonic() + PATIENCE_S
        wrong: list[str] = []
        while missing and time.monotonic() < deadline:
            for key, events in self._selector.select(1.0):
                client: Client = key.data
                if events & selectors.EVENT_WRITE:
                    client.send()
                    self._selector.modify(client.socket, selectors.EVENT_READ, client)
                    continue
                before = client.events
                if not client.receive():
                    self._selector.unregister(client.socket)
                    wrong.append(f"closed after {client.events} events: {client.head!r}")
                    missing -= before < MID_STREAM
                else:
                    missing -= before < MID_STREAM <= client.events
        if missing:
            wrong.append(f"{missing} streams have not begun within {PATIENCE_S:g} s")
        return wrong

    def leave(self) -> None:
        """All, as fast as one process can: half with RST, half with FIN, of each model."""
        for at, client in enumerate(self.clients):
            if at // 2 % 2:
                client.leave_with_reset()
            else:
                client.leave_with_fin()
        self._selector.close()
