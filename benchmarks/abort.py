"""From a client's leaving to the engine's slot being free, in front of the mock engine.

A client reads the first event, then closes its connection (or names its token at ``/v1/abort``); the mock
notes when the request that it computes is given up. Both read one clock. Other streams run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import peers, table
from benchmarks.headrace import headrace
from benchmarks.load import Load, Mock, chat_body
from benchmarks.peers import Gateway, Start

STARTS: dict[str, Start] = {
    "vllm-router": peers.vllm_router,
    "sglang-router": peers.sglang_router,
    "headrace": headrace,
}
BACKGROUND = 50


class Client:
    """A stream that has begun: its first event was read."""

    def __init__(self, gateway: Gateway, mark: int) -> None:
        body = chat_body(stream=True, tokens=5000)
        body["messages"].append({"role": "user", "content": f"mark:{mark} "})
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        fields = [*gateway.headers, f"x-abort-token: abort-{mark}", f"content-length: {len(data)}"]
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        self._socket.sendall((head + "\r\n".join(fields) + "\r\n\r\n").encode() + data)
        seen = b""
        while b'"content":" T' not in seen:
            received = self._socket.recv(65536)
            if not received:
                raise RuntimeError(f"{gateway.name} closed the stream: {seen[-500:]!r}")
            seen += received

    def close(self) -> None:
        self._socket.close()


def leave(gateway: Gateway, client: Client, mark: int) -> int:
    """Close the connection; returns the clock at that moment."""
    at = time.monotonic_ns()
    client.close()
    return at


def abort(gateway: Gateway, client: Client, mark: int) -> int:
    """Name the token at ``/v1/abort``; returns the clock before the call."""
    headers = dict(header.split(": ", 1) for header in gateway.headers)
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    at = time.monotonic_ns()
    connection.request(
        "POST",
        "/v1/abort",
        json.dumps({"token": f"abort-{mark}"}),
        {**headers, "content-type": "application/json"},
    )
    answer = connection.getresponse().read()
    connection.close()
    client.close()
    if json.loads(answer) != {"aborted": 1}:
        raise RuntimeError(f"the abort was answered {answer!r}")
    return at


def measure(
    gateway: Gateway,
    mock: Mock,
    folder: Path,
    times: int,
    end: Callable[[Gateway, Client, int], int],
) -> list[float]:
    """Milliseconds to the free slot, for each of ``times`` streams."""
    mock.config(first_ms=2, gap_ms=20)
    options = {"connections": BACKGROUND, "ramp": BACKGROUND * 4, "timeout": 60}
    body = chat_body(stream=True, tokens=max(100, times * 2))
    load = Load(folder, gateway.port, [body], gateway.headers, options)
    left: dict[int, int] = {}
    for mark in range(1, times + 1):
        left[mark] = end(gateway, Client(gateway, mark), mark)
    deadline = time.monotonic() + 10
    while len(found := _noted(mock)) < times and time.monotonic() < deadline:
        time.sleep(0.05)
    load.result()
    return [
        (found[mark] - at) / 1e6 if mark in found else float("inf") for mark, at in left.items()
    ]


def _noted(mock: Mock) -> dict[int, int]:
    return {mark: at for mark, at in mock.get("/aborted") if mark > 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(STARTS))
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        for chosen in arguments.only.split(","):
            gateway = STARTS[chosen](Path(name), mock.port)
            try:
                times = arguments.times
                found[f"{gateway.name}, client closes"] = measure(
                    gateway, mock, Path(name), times, leave
                )
                if gateway.crash is not None:
                    found[f"{gateway.name}, /v1/abort"] = measure(
                        gateway, mock, Path(name), times, abort
                    )
            finally:
                gateway.child.stop()
    rows: list[list[Any]] = [[name, *_quantiles(values)] for name, values in found.items()]
    head = ["how", "p50 ms", "p99 ms", "max ms"]
    table.show("From leaving to the engine's slot free", head, rows, json_too=found)


def _quantiles(values: list[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99, 1.0)]


if __name__ == "__main__":
    main()
