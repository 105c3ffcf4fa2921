"""`make bench-gateway`: what a request, an event and a stream cost, Headrace beside its peers.

All gateways run at once on one core, the mock engine and the load on the other; only one is loaded at a
time. Rounds are interleaved and the medians shown. CPU is that of the gateway's whole process tree.

request    64 connections ask for 1 KB answers as fast as they get them: µs of CPU a request
saturated  64 streams of 64 events as fast as they go: µs of CPU an event
paced      40 streams of 50 events a second, each its own wake-up: µs of CPU an event
rate       100 streams a second begin: their first token's p99, less that of the engine asked directly
memory     1,000 streams, after 100 tokens each: KB a stream above the gateway's own idle memory
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, peers, readback, table
from benchmarks.headrace import KEY, headrace
from benchmarks.load import Load, Mock, Report, chat_body
from benchmarks.peers import Gateway, Start

PEERS: dict[str, Start] = {
    "nginx": peers.nginx,
    "haproxy": peers.haproxy,
    "floor": peers.floor,
    "vllm-router": peers.vllm_router,
    "sglang-router": peers.sglang_router,
    "litellm": peers.litellm,
    "headrace": headrace,
}
HEAVY = ("LiteLLM",)
"""Too slow for the full load: fewer connections, and no scenario with a thousand streams."""
FIRST_MS = 20.0


class Bench:
    """One run: a mock, a folder, and the gateways that are measured."""

    def __init__(self, folder: Path, mock: Mock, seconds: float) -> None:
        self.folder = folder
        self.mock = mock
        self.seconds = seconds
        self.direct_first_ms = 0.0
        self.records: list[Path] = []

    def load(
        self, gateway: Gateway, scenario: str, stream: bool, tokens: int, **options: float
    ) -> Report:
        """Run one load to its end; adds ``cpu_s`` to its report."""
        before = machine.cpu_s(gateway.child.pid)
        body = chat_body(stream=stream, tokens=tokens)
        record = self._record(gateway)
        load = Load(self.folder, gateway.port, [body], gateway.headers, options, record=record)
        report = load.result()
        report["cpu_s"] = machine.cpu_s(gateway.child.pid) - before
        if report["failed"] or report["refused"] or report["incomplete"]:
            print(f"! {gateway.name} {scenario}: {_trouble(report)}", file=sys.stderr)
        return report

    def _record(self, gateway: Gateway) -> Path | None:
        """Where this load's received events are kept, for a gateway that has a log to compare with."""
        if gateway.crash is None:
            return None
        self.records.append(self.folder / f"received-{len(self.records)}.txt")
        return self.records[-1]

    def connections(self, gateway: Gateway, most: int) -> int:
        return min(most, 4) if gateway.name in HEAVY else most

    def request(self, gateway: Gateway) -> dict[str, float]:
        self.mock.config()
        n = self.connections(gateway, 64)
        self.load(gateway, "warm", False, 64, connections=n, seconds=0.5)
        report = self.load(gateway, "request", False, 64, connections=n, seconds=self.seconds)
        done = report["ok"] + report["failed"]
        return {
            "us_request": report["cpu_s"] * 1e6 / max(1, done),
            "requests_per_s": report["requests_per_s"],
        }

    def saturated(self, gateway: Gateway) -> dict[str, float]:
        self.mock.config()
        n = self.connections(gateway, 64)
        self.load(gateway, "warm", True, 64, connections=n, seconds=0.5)
        report = self.load(gateway, "saturated", True, 64, connections=n, seconds=self.seconds)
        return {"us_event": report["cpu_s"] * 1e6 / max(1, report["tokens"])}

    def paced(self, gateway: Gateway) -> dict[str, float]:
        self.mock.config(first_ms=20, gap_ms=20)
        n = self.connections(gateway, 40)
        tokens = int(50 * self.seconds)
        report = self.load(gateway, "paced", True, tokens, connections=n, ramp=n * 2, timeout=30)
        return {"us_paced": report["cpu_s"] * 1e6 / max(1, report["tokens"])}

    def rate(self, gateway: Gateway) -> dict[str, float]:
        report = self._rate(gateway)
        return {"added_first_p99_ms": report["first_token"]["p99"] - self.direct_first_ms}

    def _rate(self, gateway: Gateway) -> Report:
        self.mock.config(first_ms=FIRST_MS, gap_ms=10)
        rate = 5 if gateway.name in HEAVY else 100
        return self.load(
            gateway, "rate", True, 16, connections=200, rate=rate, seconds=self.seconds, warm=0.5
        )

    def measure_direct(self, mock_gateway: Gateway) -> None:
        self.direct_first_ms = self._rate(mock_gateway)["first_token"]["p99"]

    def memory(self, gateway: Gateway) -> dict[str, float]:
        if gateway.name in HEAVY:
            return {}
        streams, tokens = 1000, 100
        self.mock.config(first_ms=50, gap_ms=100)
        idle = machine.pss_mb(gateway.child.pid)
        body = chat_body(stream=True, tokens=tokens + 25)
        record = self._record(gateway)
        options = {"connections": streams, "ramp": 500, "timeout": 60}
        load = Load(self.folder, gateway.port, [body], gateway.headers, options, record=record)
        while load.running and self.mock.get("/stats")["tokens"] < streams * tokens:
            time.sleep(0.1)
        busy = machine.pss_mb(gateway.child.pid)
        report = load.result()
        if report["failed"] or report["incomplete"]:
            print(f"! {gateway.name} memory: {_trouble(report)}", file=sys.stderr)
        return {"kb_stream": (busy - idle) * 1024 / streams, "idle_mb": idle}


def prove_log(bench: Bench, gateway: Gateway) -> Gateway:
    """Read every received event back; kill -9 under load; start again; read everything back once more.
    Exits with an error if an event is missing. Returns the gateway as it runs then."""
    _read_back(bench, gateway, "after the run")
    assert gateway.crash is not None
    bench.mock.config(first_ms=5, gap_ms=2)
    record = bench.folder / "received-kill.txt"
    body = chat_body(stream=True, tokens=200)
    options = {"connections": 64, "seconds": 1.5, "timeout": 1}
    load = Load(bench.folder, gateway.port, [body], gateway.headers, options, record=record)
    time.sleep(1)
    gateway = gateway.crash()
    load.result()
    bench.records.append(record)
    _read_back(bench, gateway, "after kill -9 under load and a new start")
    return gateway


def _read_back(bench: Bench, gateway: Gateway, when: str) -> None:
    found = readback.check(gateway.port, KEY, bench.records)
    print(
        f"{when}: {found.generations:,} generations read back, {found.events:,} received events compared, "
        f"{len(found.missing)} generations incomplete",
        file=sys.stderr,
    )
    if found.missing:
        raise SystemExit("events are missing:\n" + "\n".join(found.missing[:10]))


SCENARIOS: tuple[tuple[str, Callable[[Bench, Gateway], dict[str, float]]], ...] = (
    ("request", Bench.request),
    ("saturated", Bench.saturated),
    ("paced", Bench.paced),
    ("rate", Bench.rate),
    ("memory", Bench.memory),
)
COLUMNS = (
    ("us_request", "µs/request"),
    ("us_event", "µs/event saturated"),
    ("us_paced", "µs/event paced"),
    ("added_first_p99_ms", "added first token p99 ms"),
    ("kb_stream", "KB/stream"),
    ("idle_mb", "idle MB"),
    ("requests_per_s", "requests/s"),
)


def _trouble(report: Report) -> str:
    counts = {k: report[k] for k in ("failed", "refused", "incomplete", "cut") if report[k]}
    return f"{counts} {report['error']}"


def run(
    arguments: argparse.Namespace, starts: dict[str, Start]
) -> dict[str, dict[str, list[float]]]:
    """Every figure of every round, by gateway."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        bench = Bench(Path(name), mock, arguments.seconds)
        gateways: list[Gateway] = []
        try:
            for start in starts.values():
                gateways.append(start(bench.folder, mock.port))
            bench.measure_direct(Gateway("direct", mock.child, mock.port))
            for number in range(arguments.rounds):
                for scenario, measure in SCENARIOS:
                    if scenario not in arguments.scenarios or (scenario == "memory" and number):
                        continue
                    turn = number % len(gateways)
                    for gateway in gateways[turn:] + gateways[:turn]:
                        for key, value in measure(bench, gateway).items():
                            figures.setdefault(gateway.name, {}).setdefault(key, []).append(value)
            for index, gateway in enumerate(gateways):
                if gateway.crash is not None:
                    gateways[index] = prove_log(bench, gateway)
        finally:
            for gateway in gateways:
                gateway.child.stop()
    return figures


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [*PEERS]
    parser.add_argument("--only", default=",".join(names), help="gateways, by comma")
    parser.add_argument("--scenarios", default=",".join(name for name, _ in SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.scenarios = arguments.scenarios.split(",")
    return arguments


def main() -> None:
    arguments = parsed()
    starts = peers.available(arguments.only.split(","), PEERS)
    figures = run(arguments, starts)
    medians: dict[str, dict[str, Any]] = {
        name: {key: table.median(values) for key, values in row.items()}
        for name, row in figures.items()
    }
    rows = [[name, *(row.get(key) for key, _ in COLUMNS)] for name, row in medians.items()]
    head = ["gateway", *(title for _, title in COLUMNS)]
    table.show("Gateways in front of a mock engine", head, rows, json_too=figures)


if __name__ == "__main__":
    main()
