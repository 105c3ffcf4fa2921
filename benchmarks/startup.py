"""How soon a server answers, and what it weighs before it has work: Headrace beside its peers.

Time is from the start of the process to the first 200 of its liveness path, cold caches excluded: the
first start of each is not counted. LiteLLM, which takes a quarter of a minute, is counted once. Memory
is that of the server process once it is idle, without the engine processes it started.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, peers, table
from benchmarks.headrace import MOCK_MODEL, Server
from benchmarks.load import Mock

SETTLE_S = 1.0
HEAVY = ("litellm",)


def headrace(folder: Path, mock_port: int) -> tuple[str, float, float]:
    server = Server(folder, MOCK_MODEL.format(mock_port=mock_port))
    try:
        seconds = server.child.await_http(server.port, "/livez", 30)
        server.await_ready()
        time.sleep(SETTLE_S)
        return "Headrace", seconds, machine.pss_mb(server.child.pid)
    finally:
        server.child.stop()


def peer(start: peers.Start, folder: Path, mock_port: int) -> tuple[str, float, float]:
    began = time.monotonic()
    gateway = start(folder, mock_port)
    seconds = time.monotonic() - began
    time.sleep(SETTLE_S)
    memory = machine.pss_mb(gateway.child.pid)
    gateway.child.stop()
    return gateway.name, seconds, memory


STARTS = {
    "vllm-router": lambda folder, port: peer(peers.vllm_router, folder, port),
    "sglang-router": lambda folder, port: peer(peers.sglang_router, folder, port),
    "litellm": lambda folder, port: peer(peers.litellm, folder, port),
    "headrace": headrace,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(STARTS))
    parser.add_argument("--rounds", type=int, default=5, help="starts of each that count")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        for number in range(arguments.rounds + 1):
            for chosen in arguments.only.split(","):
                if number > 1 and chosen in HEAVY:
                    continue
                folder = Path(name) / f"{chosen}-{number}"
                folder.mkdir()
                print(
                    f"start {number} of {arguments.rounds}: {chosen} …", file=sys.stderr, flush=True
                )
                title, seconds, memory = STARTS[chosen](folder, mock.port)
                if number:
                    figures.setdefault(title, []).append((seconds, memory))
    rows: list[list[Any]] = [
        [title, table.median([s for s, _ in row]), table.median([m for _, m in row])]
        for title, row in figures.items()
    ]
    table.show("Start", ["server", "first answer s", "idle MB"], rows, json_too=figures)


if __name__ == "__main__":
    main()
