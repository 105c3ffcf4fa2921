"""A child process: pinned to a core, its output kept in a file, stopped by its own process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path

from benchmarks import machine

GATEWAY_CORE = 0
LOAD_CORE = 1


class Child:
    """Starts at once. ``log``: the file that has its output."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        core: int | str = GATEWAY_CORE,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        # SIGTERM ends a benchmark as Ctrl-C does: what it started is stopped on the way out.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def await_http(self, port: int, path: str, timeout_s: float) -> float:
        """Seconds until ``GET path`` answers 200. Raises ``RuntimeError`` with the log's end if it never does."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if not self.running:
                break
            if status(port, path) == 200:
                return time.monotonic() - began
            time.sleep(0.02)
        raise RuntimeError(f"{path} on port {port} did not answer 200:\n{self._tail()}")

    def await_port(self, port: int, timeout_s: float) -> None:
        """Wait until somebody listens. Raises ``RuntimeError`` with the log's end if nobody ever does."""
        began = time.monotonic()
        while self.running and time.monotonic() - began < timeout_s:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    return
            time.sleep(0.02)
        raise RuntimeError(f"nobody listens on port {port}:\n{self._tail()}")

    def kill(self) -> None:
        """``kill -9`` of the process alone, as a crash would be; its children are left as they are."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self, patience_s: float = 5) -> None:
        """Terminate; kill what is left of its tree. Idempotent."""
        tree = machine.descendants(self.pid) if self.running else []
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in tree[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status(port: int, path: str) -> int | None:
    """The HTTP status of a GET, None if nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
