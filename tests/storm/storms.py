"""Storms of disconnects through whole servers: after each, nothing may be left of it.

Each storm opens its streams at once (half of them answered by a scripted engine in the server, half by an
OpenAI upstream), reads a little of each, and leaves abruptly: half with RST, half with FIN. The default
policy cancels what was left. Then descriptors, tasks, slots, generations and connections of both servers
must be what they were before the first storm, and memory after the last near that after the first.
usage: python -m tests.storm.storms [--storms 10] [--clients 1000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.storm.arena import Crowd, Used, Watched

SETTLE_S = 30.0
GROWTH = 1.05
WARM = 200

UPSTREAM = '[[models]]\nname = "far"\nengine = "scripted"\nscript = "SCRIPT"\n'
FRONT = """
[[models]]
name = "near"
engine = "scripted"
script = "SCRIPT"
[[models]]
name = "far"
engine = "openai"
[[models.replicas]]
url = "{url}/v1"
"""


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Watched, Watched]]:
    """The server under test and its upstream, both ready."""
    upstream = Watched(folder, "upstream", UPSTREAM)
    try:
        upstream.wait_ready()
        front = Watched(folder, "front", FRONT.format(url=upstream.url))
        try:
            front.wait_ready()
            front.wait_serves("far")  # it is ready as soon as one of its models is
            yield front, upstream
        finally:
            front.stop()
    finally:
        upstream.stop()


def storm(front: Watched, count: int) -> list[str]:
    """One storm; what went wrong before all had left."""
    crowd = Crowd(front.port, ("near", "far"), count)
    try:
        wrong = crowd.until_mid_stream()
        slots = front.used().slots
        if not wrong and slots != count:
            wrong.append(f"{slots} slots were taken by {count} streams")
        return wrong
    finally:
        crowd.leave()


def left_over(server: Watched, name: str, before: Used) -> list[str]:
    """What has not come back to what it was."""
    after = server.wait_used(before, SETTLE_S)
    pairs = zip(Used._fields, before, after, strict=True)
    return [f"{name}: {field} {was} → {now}" for field, was, now in pairs if now > was]


def storms(count: int, clients: int) -> tuple[list[str], list[int]]:
    """All storms; what was left over, and the server's memory after each in KB."""
    found: list[str] = []
    memory: list[int] = []
    with tempfile.TemporaryDirectory(prefix="headrace-storm-") as name:
        with servers(Path(name)) as (front, upstream):
            warm_up(front)
            before = [(front, "server", quiet(front)), (upstream, "upstream", quiet(upstream))]
            print(f"before: {before[0][2]}, {front.memory_kb()} KB", flush=True)
            for number in range(1, count + 1):
                began = time.monotonic()
                wrong = storm(front, clients)
                for server, which, was in before:
                    wrong += left_over(server, which, was)
                memory.append(front.memory_kb())
                took_s = time.monotonic() - began
                print(
                    f"storm {number}: {clients} streams, {took_s:.1f} s, {memory[-1]} KB, "
                    f"{len(wrong)} faults",
                    flush=True,
                )
                found += [f"storm {number}: {fault}" for fault in wrong]
    return found, memory


def warm_up(front: Watched) -> None:
    """A few streams that leave, so that what is made once is there before anything is counted."""
    crowd = Crowd(front.port, ("near", "far"), WARM)
    crowd.until_mid_stream()
    crowd.leave()


def quiet(server: Watched) -> Used:
    """What it uses with no stream under way: the least of several looks, a commit of the store may be."""
    deadline = time.monotonic() + SETTLE_S
    while (used := server.used()).running or used.connections or used.slots:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it does not become quiet: {used}")
        time.sleep(0.05)
    looks = []
    for _ in range(10):
        time.sleep(0.05)
        looks.append(server.used())
    return Used(*map(min, zip(*looks, strict=True)))


def growth(memory: list[int]) -> float:
    """Memory after the last storm as a multiple of that after the first."""
    return memory[-1] / memory[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storms", type=int, default=10)
    parser.add_argument("--clients", type=int, default=1000)
    arguments = parser.parse_args()
    found, memory = storms(arguments.storms, arguments.clients)
    grown = growth(memory)
    print(f"memory after the last storm: {grown:.3f} × that after the first")
    if grown > GROWTH:
        found.append(f"memory grew {grown:.3f} ×, more than {GROWTH} ×")
    print("\n".join(found) or "nothing was left over")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
