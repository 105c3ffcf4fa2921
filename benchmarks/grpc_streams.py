"""gRPC: messages a second of ``StreamInfer``, and what clients cost that stop reading.

Events come from the scripted engine through everything else (store, hooks, log); each is one message. Three
clients: one that only counts frames of HTTP/2 and so leaves the server its core (``raw``), ``grpc.aio`` of
Python, which is slower than the server (``aio``), and ``raw`` over gRPC-Web on the HTTP port (``web``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import h2.config
import h2.connection
import h2.settings

from benchmarks import machine, table
from benchmarks.child import LOAD_CORE, free_port
from benchmarks.headrace import HOOKS, KEY, Server
from headrace.protocols.grpc import headrace_pb2 as pb

METHOD = "/headrace.v1.InferenceService/StreamInfer"
MODEL = """
[[models]]
name = "scripted"
engine = "scripted"
script = "{script}"
"""
STOPPED = 5
STOPPED_TOKENS, STOPPED_BYTES = 2000, 4000
"""Of each stream whose client does not read: 8 MB."""


class Figure(NamedTuple):
    """Of one run. ``cpu_us``: of the server, each message."""

    messages: int
    seconds: float
    cpu_us: float


@contextmanager
def serving(
    folder: Path, gap_ms: float, tokens: int, hooks: str, core: int | str
) -> Iterator[tuple[Server, int]]:
    """A server whose model says so many tokens, this far apart; and its gRPC port."""
    script = folder / "script.json"
    scripts: list[dict[str, Any]] = [
        {
            "when": "much",
            "tokens": ["x" * STOPPED_BYTES],
            "repeat": STOPPED_TOKENS,
            "delay_ms": 1,
        },
        {"tokens": [" token"], "repeat": tokens, "delay_ms": gap_ms},
    ]
    script.write_text(json.dumps({"scripts": scripts, "slots": 20_000}))
    port = free_port()
    server = Server(folder, MODEL.format(script=script), core, hooks, grpc_port=port)
    try:
        server.await_ready()
        yield server, port
    finally:
        server.child.stop()


class Raw:
    """A connection with one call a stream, that counts what comes. ``window``: bytes it lets come unasked."""

    def __init__(self, port: int, *, window: int, web: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        configuration = h2.config.H2Configuration(client_side=True)
        self._h2 = h2.connection.H2Connection(configuration)
        self._h2.initiate_connection()
        if window > 65_535:
            self._h2.increment_flow_control_window(window - 65_535)
            self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._web = web
        self._calls = 0

    def call(self, prompt: str) -> None:
        start = pb.StreamInferRequest(infer=pb.InferRequest(prompt=prompt)).SerializeToString()
        stream = 1 + 2 * self._calls
        self._calls += 1
        kind = "application/grpc-web" if self._web else "application/grpc"
        headers = [
            *((":method", "POST"), (":path", METHOD), (":scheme", "http"), (":authority", "x")),
            *(("content-type", kind), ("te", "trailers"), ("authorization", f"Bearer {KEY}")),
        ]
        self._h2.send_headers(stream, headers)
        self._h2.send_data(stream, struct.pack(">BI", 0, len(start)) + start, end_stream=True)
        self._socket.sendall(self._h2.data_to_send())

    def count(self) -> tuple[int, float]:
        """Read to the end of all calls: messages, and seconds from the first one."""
        ends = messages = 0
        began = 0.0
        rest: dict[int, bytes] = {}
        buffer = b""
        while ends < self._calls:
            received = self._socket.recv(1 << 18)
            if not received:
                raise SystemExit("the server closed the connection")
            buffer += received
            at = 0
            while len(buffer) - at >= 9:
                size = int.from_bytes(buffer[at : at + 3], "big")
                if len(buffer) - at < 9 + size:
                    break
                kind, flags = buffer[at + 3], buffer[at + 4]
                stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
                if kind == 0:
                    began = began or time.perf_counter()
                    data = rest.pop(stream, b"") + buffer[at + 9 : at + 9 + size]
                    found, left = _messages(data)
                    messages += found
                    if left:
                        rest[stream] = left
                elif kind == 6 and not flags & 1:  # a ping
                    payload = buffer[at + 9 : at + 17]
                    self._socket.sendall(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
                elif kind == 4 and not flags & 1:  # settings
                    self._socket.sendall(b"\0\0\0\x04\x01\0\0\0\0")
                if kind in (0, 1) and flags & 1:
                    ends += 1
                at += 9 + size
            buffer = buffer[at:]
        return messages - (self._calls if self._web else 0), time.perf_counter() - began

    def close(self) -> None:
        self._socket.close()


def _messages(data: bytes) -> tuple[int, bytes]:
    """How many whole messages these bytes have, and what is left."""
    count = at = 0
    while len(data) - at >= 5:
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
        if end > len(data):
            break
        count += 1
        at = end
    return count, data[at:]


def by_raw(server: Server, port: int, streams: int, *, web: bool = False) -> Figure:
    # As many connections as our HTTP/2 front allows its streams; gRPC gets the same.
    connections = [
        Raw(server.port if web else port, window=2**31 - 1, web=web)
        for _ in range(1 if not web else -(-streams // 100))
    ]
    before = machine.cpu_s(server.child.pid)
    for number in range(streams):
        connections[number % len(connections)].call("Hi")
    messages, seconds = connections[0].count()
    for other in connections[1:]:
        messages += other.count()[0]
    cpu_s = machine.cpu_s(server.child.pid) - before
    for connection in connections:
        connection.close()
    return Figure(messages, seconds, cpu_s / messages * 1e6)


async def by_aio(server: Server, port: int, streams: int) -> Figure:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_stream(METHOD)
        start = pb.StreamInferRequest(infer=pb.InferRequest(prompt="Hi")).SerializeToString()
        began = [0.0]

        async def one() -> int:
            count = 0
            async for _ in method(start, metadata=[("authorization", f"Bearer {KEY}")]):
                began[0] = began[0] or time.perf_counter()
                count += 1
            return count

        before = machine.cpu_s(server.child.pid)
        messages = sum(await asyncio.gather(*(one() for _ in range(streams))))
        seconds = time.perf_counter() - began[0]
        cpu_s = machine.cpu_s(server.child.pid) - before
    return Figure(messages, seconds, cpu_s / messages * 1e6)


def stopped(server: Server, port: int, *, reading: bool) -> float:
    """MB by which the server grows for clients with long streams, that read or do not."""
    connections = [
        Raw(port, window=65_535 if not reading else 2**31 - 1, web=False) for _ in range(STOPPED)
    ]
    before = machine.pss_mb(server.child.pid)
    for connection in connections:
        connection.call("much")
    if reading:
        for connection in connections:
            connection.count()
    else:
        _await_idle(server)
    grown = machine.pss_mb(server.child.pid) - before
    for connection in connections:
        connection.close()
    return grown


def _await_idle(server: Server, timeout_s: float = 120) -> None:
    """Until the engine has computed everything."""
    ends = time.monotonic() + timeout_s
    time.sleep(0.5)
    while time.monotonic() < ends:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {KEY}"})
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        running = [line for line in lines if line.startswith("vllm:num_requests_running")]
        if running and all(line.endswith((" 0", " 0.0")) for line in running):
            return
        time.sleep(0.2)
    raise SystemExit("generations did not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=1000, help="of each stream")
    parser.add_argument("--gap-ms", type=float, default=1.0, help="between them; 0: all at once")
    parser.add_argument("--clients", default="raw,web,aio")
    parser.add_argument("--cores", default="0", help="the server's; the client has core 1")
    parser.add_argument("--no-hooks", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    hooks = "" if arguments.no_hooks else HOOKS
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = (arguments.gap_ms, arguments.tokens, hooks, arguments.cores)
        with serving(folder, *options) as (server, port):
            for client in arguments.clients.split(","):
                if client == "aio":
                    figures[client] = asyncio.run(by_aio(server, port, arguments.streams))
                else:
                    web = client == "web"
                    figures[client] = by_raw(server, port, arguments.streams, web=web)
            warm = stopped(server, port, reading=True)
            reading = stopped(server, port, reading=True)
            grown = stopped(server, port, reading=False)
    rows = [
        [client, f"{f.messages:,}", f.seconds, f.messages / f.seconds, f.cpu_us]
        for client, f in figures.items()
    ]
    head = ["client", "messages", "s", "messages/s", "server CPU us each"]
    results = {client: figure._asdict() for client, figure in figures.items()}
    title = f"StreamInfer, {arguments.streams} streams"
    table.show(title, head, rows, json_too=results)
    memory = {"first readers": warm, "readers": reading, "clients that do not read": grown}
    title = (
        f"Growth of the server, {STOPPED} streams of {STOPPED_TOKENS * STOPPED_BYTES / 1e6:g} MB"
    )
    table.show(title, ["who", "MB"], [[who, mb] for who, mb in memory.items()], json_too=memory)


if __name__ == "__main__":
    main()
