"""`make bench-streams`: thousands of streams of one token a second through one process.

Streams begin at a steady rate until all are open at once, and each then gets some more tokens. Shown
beside the mock engine asked directly, whose figures are what the machine itself adds: the first token
comes 200 ms after the request, an event's delay is from the engine's stamp to its arrival. Mock and
gateway are started anew for each, since a process's first thousands of connections cost the most.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, peers, readback, table
from benchmarks.headrace import KEY, headrace
from benchmarks.load import Load, Mock, Report, chat_body
from benchmarks.peers import Gateway, Start

FIRST_MS = 200.0
Target = Callable[[Path, Mock], Gateway]


def directly(folder: Path, mock: Mock) -> Gateway:
    return Gateway("engine directly", mock.child, mock.port)


def through(start: Start) -> Target:
    return lambda folder, mock: start(folder, mock.port)


TARGETS: dict[str, Target] = {
    "direct": directly,
    "floor": through(peers.floor),
    "vllm-router": through(peers.vllm_router),
    "sglang-router": through(peers.sglang_router),
    "headrace": through(headrace),
}


def measure(target: Target, arguments: argparse.Namespace) -> tuple[str, Report]:
    """One ramp of streams through a fresh mock and gateway; Headrace's log is compared afterwards."""
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        folder = Path(name)
        gateway = target(folder, mock)
        try:
            report = _ramp(folder, mock, gateway, arguments)
        finally:
            gateway.child.stop()
        return gateway.name, report


def _ramp(folder: Path, mock: Mock, gateway: Gateway, arguments: argparse.Namespace) -> Report:
    ramp_s = arguments.streams / arguments.ramp
    tokens = int(ramp_s) + arguments.tokens
    mock.config(first_ms=FIRST_MS, gap_ms=1000)
    options = {"connections": arguments.streams, "ramp": arguments.ramp, "timeout": tokens + 45}
    record = folder / "received.txt" if gateway.crash else None
    idle_mb, idle_cpu_s = machine.pss_mb(gateway.child.pid), machine.cpu_s(gateway.child.pid)
    body = chat_body(stream=True, tokens=tokens)
    load = Load(folder, gateway.port, [body], gateway.headers, options, record=record)
    busy_mb = idle_mb
    while load.running:
        busy_mb = max(busy_mb, machine.pss_mb(gateway.child.pid))
        time.sleep(1)
    report = load.result()
    report["cpu_us_event"] = (
        (machine.cpu_s(gateway.child.pid) - idle_cpu_s) * 1e6 / max(1, report["tokens"])
    )
    report["kb_stream"] = (busy_mb - idle_mb) * 1024 / arguments.streams
    if record is not None:
        found = readback.check(gateway.port, KEY, [record])
        report["read_back"] = found.events
        if found.missing:
            raise SystemExit("events are missing:\n" + "\n".join(found.missing[:10]))
    return report


def _quantile(report: Report, spread: str, quantile: str) -> float | None:
    return report[spread][quantile] if report[spread] else None


def _row(name: str, report: Report, direct: Report | None) -> list[Any]:
    def added(spread: str) -> float | None:
        value = _quantile(report, spread, "p99")
        base = _quantile(direct, spread, "p99") if direct is not None else 0.0
        return None if value is None or base is None else value - base

    errors = report["failed"] + report["refused"] + report["incomplete"] + report["cut"]
    return [
        name,
        report["peak"],
        errors,
        _quantile(report, "first_token", "p50"),
        _quantile(report, "first_token", "p99"),
        added("first_token"),
        _quantile(report, "delay", "p99"),
        added("delay"),
        report["cpu_us_event"],
        report["kb_stream"],
    ]


HEAD = (
    "through", "streams at once", "errors", "first token p50 ms", "p99 ms", "added p99 ms",
    "event delay p99 ms", "added p99 ms", "µs CPU/event", "KB/stream",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=9500)
    parser.add_argument("--ramp", type=float, default=1000, help="streams begun a second")
    parser.add_argument("--tokens", type=int, default=12, help="tokens after the last one began")
    parser.add_argument("--only", default=",".join(TARGETS), help="targets, by comma")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    reports: dict[str, Report] = {}
    for name in arguments.only.split(","):
        title, report = measure(TARGETS[name], arguments)
        reports[title] = report
    direct = reports.get("engine directly")
    rows = [_row(name, report, direct) for name, report in reports.items()]
    table.show(f"{arguments.streams:,} streams of a token a second", HEAD, rows, json_too=reports)


if __name__ == "__main__":
    main()
