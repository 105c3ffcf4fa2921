"""`python -m benchmarks.tensors`: a tensor's way to an identity model and back, in every form, beside one memcpy.

The server is Headrace with an ONNX model that gives what it takes; base64 is a server of its own on the same front
(``benchmarks.base64_peer``). A server may use both cores, as when it is started by hand: a large copy is made by two
threads, one of them on the client's core, which waits meanwhile. (``--server-cores 0``: it has one, and the client the
other.) Every figure is the median of a round trip in microseconds, from an array to an array; the ways take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import table, tensor_wires
from benchmarks.child import GATEWAY_CORE, LOAD_CORE, Child, free_port
from benchmarks.headrace import REPOSITORY
from benchmarks.tensor_wires import Array, RoundTrip

SIZES = {"6 KB": 6 * 1024, "1 MB": 1 << 20, "16 MB": 16 << 20}
CONFIG = """
[server]
port = {port}
grpc_port = {grpc_port}
max_body_bytes = 1073741824
log_level = "warning"
state_dir = "{folder}/state"

[store]
url = "memory:"

[[models]]
name = "identity"
engine = "onnx"
source = "file:{folder}/identity.onnx"
"""
Open = Callable[[int, Array], RoundTrip]


class Servers:
    """Headrace, and the peer. ``ports``: of Headrace, of its gRPC, and of the peer. ``cores``: theirs, as ``taskset``
    takes them."""

    def __init__(self, folder: Path, cores: str) -> None:
        self.ports = {"http": free_port(), "grpc": free_port(), "peer": free_port()}
        write_identity(folder / "identity.onnx")
        config = folder / "headrace.toml"
        config.write_text(
            CONFIG.format(port=self.ports["http"], grpc_port=self.ports["grpc"], folder=folder)
        )
        python = [sys.executable, "-m"]
        serve = [*python, "headrace", "serve", "--config", str(config)]
        peer = [*python, "benchmarks.base64_peer", str(self.ports["peer"])]
        self.children = [
            Child(command, folder / "log", cores, cwd=REPOSITORY) for command in (serve, peer)
        ]

    def await_ready(self) -> None:
        self.children[0].await_http(self.ports["http"], "/v2/health/ready", 60)
        self.children[1].await_http(self.ports["peer"], "/", 60)

    def stop(self) -> None:
        for child in self.children:
            child.stop()


WAYS: dict[str, tuple[str, Open]] = {
    "JSON": ("http", tensor_wires.json_lists),
    "base64 in JSON": ("peer", tensor_wires.base64_peer),
    "V2 binary": ("http", tensor_wires.v2_binary),
    "gRPC raw": ("grpc", tensor_wires.grpc_raw),
    "shared memory, copied in and out": ("http", tensor_wires.shared_copied),
    "shared memory, in place": ("http", tensor_wires.shared_in_place),
    "memfd, in place": ("http", tensor_wires.memfd_in_place),
    "shared memory, answered over its input": ("http", tensor_wires.shared_over_input),
    "one memcpy": ("http", tensor_wires.memcpy),
    "one memcpy in shared memory": ("http", tensor_wires.memcpy_shared),
}
TURNS = ("in place, in turns with a memcpy", "that memcpy, of the same memory")
"""A copy in a loop has its caches to itself; one of those between which something else happens has not."""


def write_identity(path: Path) -> None:
    """An ONNX model whose output is its input: floats of any two dimensions."""
    from onnx import TensorProto, helper

    shape = ("rows", "columns")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in (tensor_wires.INPUT, tensor_wires.OUTPUT)
    ]
    node = helper.make_node("Identity", [tensor_wires.INPUT], [tensor_wires.OUTPUT])
    graph = helper.make_graph([node], "identity", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    path.write_bytes(model.SerializeToString())


def measure(servers: Servers, size: int, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Microseconds of every round trip, by way."""
    array = np.random.default_rng(7).standard_normal((1, size // 4), np.float32)
    ways = {
        name: open(servers.ports[port], array)
        for name, (port, open) in WAYS.items()
        if not arguments.only or name in arguments.only
    }
    for name, once in ways.items():
        if not np.allclose(once().reshape(-1), array.reshape(-1)):
            raise SystemExit(f"{name} gave back another tensor")
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, once in ways.items():
            figures[name] += _timed(once, arguments.seconds)
    if not arguments.only or set(TURNS) & set(arguments.only):
        pair = tensor_wires.in_turns(servers.ports["http"], array)
        figures |= dict(zip(TURNS, _in_turns(pair, arguments), strict=True))
    return figures


def _in_turns(
    pair: tuple[RoundTrip, RoundTrip], arguments: argparse.Namespace
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + arguments.seconds * arguments.rounds
    while not found[0] or time.perf_counter() < end:
        for once, figures in zip(pair, found, strict=True):
            began = time.perf_counter()
            once()
            figures.append((time.perf_counter() - began) * 1e6)
    return found


def _timed(once: RoundTrip, seconds: float) -> list[float]:
    """At least one; the first after a pause is not counted."""
    once()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        began = time.perf_counter()
        once()
        found.append((time.perf_counter() - began) * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each way in a round")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="*", choices=[*WAYS, *TURNS])
    parser.add_argument("--server-cores", default=f"{GATEWAY_CORE},{LOAD_CORE}")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        servers = Servers(Path(name), arguments.server_cores)
        try:
            servers.await_ready()
            for label in arguments.sizes:
                for way, found in measure(servers, SIZES[label], arguments).items():
                    figures.setdefault(way, {})[label] = statistics.median(found)
        finally:
            servers.stop()
    rows = [[way, *(found[label] for label in arguments.sizes)] for way, found in figures.items()]
    title = "A tensor there and back, µs"
    table.show(title, ["way", *arguments.sizes], rows, json_too=figures)


if __name__ == "__main__":
    main()
