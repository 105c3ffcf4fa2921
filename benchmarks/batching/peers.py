"""Peers that batch, each with the MiniLM file, under the same load: a text a request, a vector as JSON back.

The server has the first core (or what ``--cores`` says) and as many threads for a run, the load generator the second.
Each peer computes as sentence-transformers does, with the same tokenizer and ONNX Runtime, in a virtual environment of
its own (``benchmarks.peers`` makes it); its batches are its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, table
from benchmarks.batching.measured import MINILM, MINILM_SHA256, TOKENIZER, minilm, tokenizer
from benchmarks.batching.texts import texts
from benchmarks.child import Child, free_port
from benchmarks.headrace import REPOSITORY, Server
from benchmarks.load import Load, Report
from benchmarks.peers import Package, environment

BESIDE = ("numpy", "onnxruntime==1.32.0", "tokenizers==0.23.3")
MLSERVER = Package("mlserver", "1.7.1", beside=(*BESIDE, "uvloop==0.21.0"))
"""With a later uvloop its processes die when they start."""
LITSERVE = Package("litserve", "0.2.19", beside=BESIDE)
MOSEC = Package("mosec", "0.9.8", beside=BESIDE)
BENTOML = Package("bentoml", "1.4.40", beside=BESIDE)
BARE = "bare loop"

HEADRACE_MODEL = """
[[models]]
name = "minilm"
engine = "onnx"
source = "{source}"
sha256 = "{sha256}"
[models.onnx]
intra_threads = {threads}
[models.batching]
max_batch_size = {size}
max_wait_ms = {wait_ms}
[models.embedding]
enabled = true
tokenizer = "{tokenizer}"
max_tokens = 256
"""


class Batches(NamedTuple):
    """``size``: rows of a batch, ``wait_ms``: the longest wait for more."""

    size: int = 64
    wait_ms: float = 5.0


class Conditions(NamedTuple):
    """``cores``: of the server, as ``taskset`` takes them. ``calm_requests``: that a measurement at half load has at
    least, however many seconds that takes."""

    clients: int
    mixed: bool
    seconds: float
    cores: str = "0"
    calm_requests: int = 1000
    batches: Batches | None = None

    @property
    def threads(self) -> int:
        return len(self.cores.split(","))


class Bare(NamedTuple):
    """Rows a second, and CPU milliseconds a row, of the loop without a server."""

    per_s: float
    cpu_ms: float


class Place(NamedTuple):
    """Where a peer is started."""

    folder: Path
    cores: str
    batches: Batches
    threads: int

    def child(self, name: str, command: list[str], **more: str) -> Child:
        env = {
            "MINILM": str(minilm()),
            "MINILM_TOKENIZER": str(tokenizer()),
            "MINILM_SIZE": str(self.batches.size),
            "MINILM_WAIT_MS": str(self.batches.wait_ms),
            "PYTHONPATH": str(REPOSITORY),
            **more,
        }
        return Child(command, self.folder / f"{name}.log", self.cores, env, self.folder)


class Peer(NamedTuple):
    """One that runs. ``body``: of a request with this text."""

    child: Child
    port: int
    path: str
    body: Callable[[str], dict[str, Any]]
    headers: tuple[str, ...] = ()


Start = Callable[[Place], Peer]


def _started(child: Child, port: int, ready: str, path: str, body: Any) -> Peer:
    try:
        child.await_http(port, ready, 120)
    except RuntimeError:
        child.stop()
        raise
    return Peer(child, port, path, body)


def _plain(text: str) -> dict[str, Any]:
    return {"input": text}


def headrace(place: Place) -> Peer:
    model = HEADRACE_MODEL.format(
        source=MINILM,
        sha256=MINILM_SHA256,
        threads=place.threads,
        size=place.batches.size,
        wait_ms=place.batches.wait_ms,
        tokenizer=TOKENIZER,
    )
    server = Server(place.folder, model, place.cores, hooks="")
    try:
        server.await_ready()
    except RuntimeError:
        server.child.stop()
        raise

    def body(text: str) -> dict[str, Any]:
        return {"model": "minilm", "input": text, "encoding_format": "float"}

    return Peer(server.child, server.port, "/v1/embeddings", body, server.gateway.headers)


def litserve(place: Place) -> Peer:
    port = free_port()
    python = str(environment(LITSERVE) / "bin/python")
    command = [python, "-m", "benchmarks.batching.servers.litserve_server", str(port)]
    return _started(place.child("litserve", command), port, "/health", "/predict", _plain)


def mosec(place: Place) -> Peer:
    port = free_port()
    python = str(environment(MOSEC) / "bin/python")
    command = [
        python, "-m", "benchmarks.batching.servers.mosec_server",
        "--port", str(port), "--address", "127.0.0.1", "--timeout", "600000", "--log-level", "error",
    ]  # fmt: skip
    return _started(place.child("mosec", command), port, "/metrics", "/inference", _plain)


def bentoml(place: Place) -> Peer:
    port = free_port()
    program = str(environment(BENTOML) / "bin/bentoml")
    service = "benchmarks.batching.servers.bento_service:MiniLmService"
    command = [program, "serve", service, "--port", str(port), "--host", "127.0.0.1", "-q"]
    child = place.child("bentoml", command, BENTOML_DO_NOT_TRACK="True")

    def body(text: str) -> dict[str, Any]:
        return {"input": [text]}

    return _started(child, port, "/readyz", "/embed", body)


def mlserver(place: Place) -> Peer:
    """The model is in a process of its own, as is its default: so batches gather while one is computed."""
    port = free_port()
    size, wait_ms = place.batches
    of_server = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "debug": False}
    of_server |= {"metrics_port": free_port(), "parallel_workers": 1}
    of_model = {"name": "minilm", "max_batch_size": size, "max_batch_time": wait_ms / 1000}
    of_model |= {"implementation": "benchmarks.batching.servers.mlserver_runtime.Runtime"}
    (place.folder / "settings.json").write_text(json.dumps(of_server))
    (place.folder / "model-settings.json").write_text(json.dumps(of_model))
    program = str(environment(MLSERVER) / "bin/mlserver")
    child = place.child("mlserver", [program, "start", str(place.folder)])

    def body(text: str) -> dict[str, Any]:
        return {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}

    path = "/v2/models/minilm/infer"
    return _started(child, port, "/v2/models/minilm/ready", path, body)


PEERS: Mapping[str, Start] = {
    "Headrace": headrace,
    "MLServer": mlserver,
    "LitServe": litserve,
    "Mosec": mosec,
    "BentoML": bentoml,
}
BEST: Mapping[str, Batches] = {
    "Headrace": Batches(32),
    "MLServer": Batches(),
    "LitServe": Batches(),
    "Mosec": Batches(wait_ms=1.0),
    "BentoML": Batches(),
}
"""Of the sizes and waits tried with ``--size`` and ``--wait-ms``, what served most."""
BARE_SIZES = (8, 16, 32, 64)
"""Rows of the loop's runs: what is best for it depends on the machine's caches."""
WARM = 0.25
"""Share of a measurement that is over before it counts."""


def compare(conditions: Conditions, rounds: int, only: str) -> None:
    """By turns, so that a slow minute hits all."""
    names = [name for name in PEERS if not only or name.lower() in only.lower().split(",")]
    loop: dict[int, list[Bare]] = {size: [] for size in BARE_SIZES}
    full: dict[str, list[Report]] = {name: [] for name in names}
    for _ in range(rounds):
        for size, found in loop.items():
            found.append(bare(conditions, size))
        for name in names:
            full[name].append(_measured(name, conditions))
    per_s = {name: _median(found, "requests_per_s") for name, found in full.items()}
    most, cpu_ms = max(_medians(found) for found in loop.values())
    half = min(per_s.values()) / 2
    calm: dict[str, list[Report]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            calm[name].append(_measured(name, conditions, half))
    rows: list[list[object]] = [[BARE, most, 100.0, None, None, cpu_ms, None, None]]
    for name in names:
        row: list[object] = [name, per_s[name], 100 * per_s[name] / most]
        row += [*_waits(full[name]), _median(full[name], "cpu_ms"), *_waits(calm[name])]
        rows.append(row)
    head = ["", "requests/s", "% of the loop", "p50 ms", "p99 ms", "CPU ms a request"]
    head += [f"at {half:.0f}/s: p50 ms", "p99 ms"]
    of = "8 to 48 tokens" if conditions.mixed else "32 tokens"
    title = f"MiniLM int8, texts of {of}, {conditions.clients} clients, server on core {conditions.cores}"
    results = {"bare": loop, "full": full, "half": calm}
    table.show(f"{title}, {rounds} rounds", head, rows, json_too=results)


def _median(found: list[Report], of: str) -> float:
    return table.median([one[of] for one in found]) or 0.0


def _waits(found: list[Report]) -> list[float | None]:
    return [table.median([one["latency"][of] for one in found]) for of in ("p50", "p99")]


def _medians(found: list[Bare]) -> Bare:
    per_s, cpu_ms = (table.median(values) or 0.0 for values in zip(*found, strict=True))
    return Bare(per_s, cpu_ms)


def bare(conditions: Conditions, size: int) -> Bare:
    """The loop without a server, in the server's place, with runs of this size."""
    command = [sys.executable, "-m", "benchmarks.batching.servers.bare", str(size)]
    env = {"MINILM": str(minilm()), "MINILM_TOKENIZER": str(tokenizer())}
    output = subprocess.run(
        ["taskset", "-c", conditions.cores, *command, str(conditions.seconds / 2)],
        check=True,
        capture_output=True,
        text=True,
        input="\n".join(texts(mixed=conditions.mixed)),
        env={**os.environ, **env},
        cwd=REPOSITORY,
    )
    per_s, cpu_ms = map(float, output.stdout.split())
    return Bare(per_s, cpu_ms)


def _measured(name: str, conditions: Conditions, rate: float | None = None) -> Report:
    seconds = conditions.seconds
    if rate is not None:
        seconds = max(seconds, conditions.calm_requests / rate / (1 - WARM))
    options: dict[str, float] = {
        "connections": conditions.clients,
        "seconds": seconds,
        "warm": WARM * seconds,
    }
    if rate is not None:
        options["rate"] = rate
    batches = conditions.batches or BEST[name]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), conditions.cores, batches, conditions.threads)
        peer = PEERS[name](place)
        try:
            bodies = [peer.body(text) for text in texts(mixed=conditions.mixed)]
            before = machine.cpu_s(peer.child.pid)
            load = Load(place.folder, peer.port, bodies, peer.headers, options, peer.path)
            report = load.result()
            report["cpu_ms"] = 1000 * (machine.cpu_s(peer.child.pid) - before) / report["ok"]
        finally:
            peer.child.stop()
    if report.get("failed"):
        raise RuntimeError(f"{report['failed']} requests of {name} failed: {report}")
    return report
