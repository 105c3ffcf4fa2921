"""What clients cost that stop reading, over gRPC: by how much the server grows for long streams of the scripted
engine, whose clients read them or do not. ``benchmarks.protocols`` has what streams cost that are read.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.settings

from benchmarks import machine, table
from benchmarks.child import LOAD_CORE, free_port
from benchmarks.headrace import HOOKS, KEY, Server
from benchmarks.wires import STREAM_INFER
from headrace.protocols.grpc import headrace_pb2 as pb

MODEL = """
[[models]]
name = "scripted"
engine = "scripted"
script = "{script}"
"""
WINDOW = 2**31 - 1
SMALL_WINDOW = 65_535


def serving(folder: Path, tokens: int, token_bytes: int) -> tuple[Server, int]:
    """A server whose model says so many tokens of this size, and its gRPC port."""
    script = folder / "script.json"
    says: dict[str, Any] = {"tokens": ["x" * token_bytes], "repeat": tokens, "delay_ms": 1}
    script.write_text(json.dumps({"scripts": [says]}))
    port = free_port()
    return Server(folder, MODEL.format(script=script), 0, HOOKS, grpc_port=port), port


class Client:
    """A connection with one call. ``window``: bytes it lets come before it reads."""

    def __init__(self, port: int, window: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        frames = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        frames.initiate_connection()
        if window > SMALL_WINDOW:
            frames.increment_flow_control_window(window - SMALL_WINDOW)
            frames.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        start = pb.StreamInferRequest(infer=pb.InferRequest(prompt="Hi")).SerializeToString()
        headers = [
            *((":method", "POST"), (":path", STREAM_INFER), (":scheme", "http")),
            *((":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")),
            ("authorization", f"Bearer {KEY}"),
        ]
        frames.send_headers(1, headers)
        frames.send_data(1, struct.pack(">BI", 0, len(start)) + start, end_stream=True)
        self._socket.sendall(frames.data_to_send())

    def read(self) -> None:
        """To the end of the call: its frame of trailers."""
        buffer = b""
        while True:
            received = self._socket.recv(1 << 18)
            if not received:
                raise SystemExit("the server closed the connection")
            buffer += received
            at = 0
            while len(buffer) - at >= 9:
                end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
                if len(buffer) < end:
                    break
                kind, flags = buffer[at + 3], buffer[at + 4]
                if kind == 1 and flags & 1:
                    return
                if kind == 4 and not flags & 1:  # settings
                    self._socket.sendall(b"\0\0\0\x04\x01\0\0\0\0")
                at = end
            buffer = buffer[at:]

    def close(self) -> None:
        self._socket.close()


def grown(server: Server, port: int, streams: int, *, reading: bool) -> float:
    """MB by which the server grows for these clients."""
    before = machine.pss_mb(server.child.pid)
    clients = [Client(port, WINDOW if reading else SMALL_WINDOW) for _ in range(streams)]
    if reading:
        for client in clients:
            client.read()
    else:
        await_idle(server)
    found = machine.pss_mb(server.child.pid) - before
    for client in clients:
        client.close()
    return found


def await_idle(server: Server, timeout_s: float = 120) -> None:
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
    parser.add_argument("--streams", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2000, help="of each stream")
    parser.add_argument("--token-bytes", type=int, default=4000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as name:
        server, port = serving(Path(name), arguments.tokens, arguments.token_bytes)
        try:
            server.await_ready()
            memory = {
                who: grown(server, port, arguments.streams, reading=reading)
                for who, reading in (
                    ("first readers", True),
                    ("readers", True),
                    ("clients that do not read", False),
                )
            }
        finally:
            server.child.stop()
    each = arguments.tokens * arguments.token_bytes / 1e6
    title = f"Growth of the server, {arguments.streams} streams of {each:g} MB over gRPC"
    table.show(title, ["who", "MB"], [[who, mb] for who, mb in memory.items()], json_too=memory)


if __name__ == "__main__":
    main()
