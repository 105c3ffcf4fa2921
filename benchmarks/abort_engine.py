"""From a client's leaving to a free slot of the embedded engine, by the engine's own ``/slots``.

decode   the client leaves after the first token; a decode step is the usual gap between two tokens
prefill  it leaves while a long prompt is computed; a micro-batch is what the engine computes at once
The bound is two decode steps, or one micro-batch. Time depends on what else the machine does, so the
engine's own count of decodes is shown too: the one under way counts, so 1 is the least there can be.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import socket
import tempfile
import time
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.embedded import EmbeddedServer, Endpoint
from benchmarks.peers import Gateway

LONG_WORDS = 1500


class Slots:
    """Asks the engine which of its slots compute."""

    def __init__(self, engine: Endpoint) -> None:
        self._engine = engine
        self._headers = {"Authorization": engine.authorization}

    def busy(self) -> int:
        return sum(slot["is_processing"] for slot in json.loads(self._get("/slots")))

    def decodes(self) -> int:
        """How many batches the engine has computed since its start."""
        lines = self._get("/metrics").decode().splitlines()
        (line,) = (line for line in lines if line.startswith("llamacpp:n_decode_total "))
        return int(float(line.split()[1]))

    def _get(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._engine.port, timeout=30)
        connection.request("GET", path, headers=self._headers)
        found = connection.getresponse().read()
        connection.close()
        return found

    def wait(self, busy: bool) -> float:
        """Milliseconds until some slot computes, or none."""
        began = time.monotonic()
        while bool(self.busy()) != busy:
            if time.monotonic() - began > 60:
                raise RuntimeError("the engine's slots do not change")
        return (time.monotonic() - began) * 1000


def ask(gateway: Gateway, words: int, tokens: int) -> socket.socket:
    """Send a streamed chat request."""
    text = f"{secrets.token_hex(8)} " + "water " * words
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    fields = [*gateway.headers, f"content-length: {len(data)}"]
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
    connection.sendall((head + "\r\n".join(fields) + "\r\n\r\n").encode() + data)
    return connection


def read_tokens(connection: socket.socket, count: int) -> list[float]:
    """When each of the first ``count`` pieces with text arrived."""
    times: list[float] = []
    while len(times) < count:
        received = connection.recv(65536)
        if not received:
            raise RuntimeError("the stream ended early")
        times += [time.monotonic()] * received.count(b'"content":"')
    return times


def leave(connection: socket.socket, slots: Slots) -> tuple[float, int]:
    """Milliseconds to the free slot, and the batches that ended from then on."""
    before = slots.decodes()
    connection.close()
    free_ms = slots.wait(busy=False)
    return free_ms, slots.decodes() - before


def in_decode(gateway: Gateway, slots: Slots) -> tuple[float, int, float]:
    """Milliseconds to the free slot, batches until then, and milliseconds of a decode step."""
    connection = ask(gateway, 20, 400)
    times = read_tokens(connection, 12)
    step = table.median([later - before for before, later in pairwise(times[2:])]) or 0.0
    return (*leave(connection, slots), step * 1000)


def in_prefill(gateway: Gateway, slots: Slots, micro_batch: float) -> tuple[float, int, float]:
    """The same, with the milliseconds of a micro-batch. It leaves at any moment of the prefill."""
    connection = ask(gateway, LONG_WORDS, 400)
    slots.wait(busy=True)
    time.sleep(random.random() * 4 * micro_batch / 1000)
    return (*leave(connection, slots), micro_batch)


def micro_batch_ms(gateway: Gateway, ubatch: int) -> float:
    """From the time of a whole long prompt; a word of it is a token."""
    began = time.monotonic()
    connection = ask(gateway, LONG_WORDS, 2)
    first = read_tokens(connection, 1)[0]
    connection.close()
    return (first - began) * 1000 * ubatch / LONG_WORDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--ubatch", type=int, default=64, help="the engine's micro-batch, tokens")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, int, float]]] = {"decode": [], "prefill": []}
    with tempfile.TemporaryDirectory() as name:
        server = EmbeddedServer(Path(name))
        try:
            slots, gateway = Slots(server.endpoint()), server.gateway
            batch_ms = micro_batch_ms(gateway, arguments.ubatch)
            slots.wait(busy=False)
            for _ in range(arguments.times):
                found["decode"].append(in_decode(gateway, slots))
                found["prefill"].append(in_prefill(gateway, slots, batch_ms))
        finally:
            server.child.stop()
    rows: list[list[Any]] = []
    for phase, values in found.items():
        ordered = sorted(free for free, _, _ in values)
        unit = table.median([unit for _, _, unit in values])
        worst = ordered[int(0.99 * (len(ordered) - 1))]
        batches = [count for _, count, _ in values]
        counted = table.median(batches), max(batches)
        rows.append([phase, table.median(ordered), worst, ordered[-1], unit, *counted])
    units = ["a step or micro-batch ms", "batches p50", "batches max"]
    head = ["in", "p50 ms", "p99 ms", "max ms", *units]
    table.show("From leaving to a free slot of the embedded engine", head, rows, json_too=found)


if __name__ == "__main__":
    main()
