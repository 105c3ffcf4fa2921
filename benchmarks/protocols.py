"""`make bench-protocols`: what a streamed event costs on each wire, beside Python's gRPC servers.

One server of Headrace with everything switched on (store, hooks, key) is asked over SSE, NDJSON, gRPC and
gRPC-Web; the peers (``benchmarks.grpc_peers``) do what they can of the same work: they read the same engine and
send a message a token, and keep no log. Everything runs at once on one core, the mock engine and the load on the
other; only one is loaded at a time. Rounds are interleaved and the medians shown.

saturated  100 streams of 64 events, asked for again as fast as they end: µs of CPU an event, events a second, and
           first tokens
paced      40 streams of 50 events a second, each its own wake-up: µs of CPU an event
rate       100 streams a second begin: their first tokens

CPU is that of the whole process, its requests included. First tokens are less those of the engine asked directly.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine, table, wires
from benchmarks.load import Mock, Report
from benchmarks.wires import Wire

SETTLE_S = 0.3
"""After a load: a log comes into the database behind its client's back, and is paid for here."""
STREAMS, TOKENS = 100, 64
COLUMNS = (
    ("us_saturated", "µs/event saturated"),
    ("us_paced", "µs/event paced"),
    ("events_per_s", "events/s saturated"),
    ("busy", "of its core"),
    ("first_p50_ms", "added first token p50 ms"),
    ("first_p99_ms", "p99 ms"),
    ("saturated_first_p50_ms", "saturated p50 ms"),
    ("saturated_first_p99_ms", "p99 ms"),
)
Figures = dict[str, float]


class Bench:
    """One run: a mock and a folder."""

    def __init__(self, folder: Path, mock: Mock, seconds: float) -> None:
        self._folder = folder
        self._mock = mock
        self._seconds = seconds

    def saturated(self, wire: Wire) -> Figures:
        self._mock.config()
        self._load(wire, TOKENS, connections=STREAMS, seconds=0.5)
        report = self._load(wire, TOKENS, connections=STREAMS, seconds=self._seconds)
        return {
            "us_saturated": report["cpu_s"] * 1e6 / report["tokens"],
            "events_per_s": report["tokens_per_s"],
            "busy": report["cpu_s"] / report["seconds"],
            "saturated_first_p50_ms": report["first_token"]["p50"],
            "saturated_first_p99_ms": report["first_token"]["p99"],
        }

    def paced(self, wire: Wire) -> Figures:
        self._mock.config(first_ms=20, gap_ms=20)
        tokens = int(50 * self._seconds)
        report = self._load(wire, tokens, connections=40, ramp=80, timeout=30)
        return {"us_paced": report["cpu_s"] * 1e6 / report["tokens"]}

    def rate(self, wire: Wire) -> Figures:
        self._mock.config(first_ms=20, gap_ms=10)
        report = self._load(wire, 16, connections=100, rate=100, seconds=self._seconds, warm=0.5)
        first = report["first_token"]
        return {"first_p50_ms": first["p50"], "first_p99_ms": first["p99"]}

    def _load(self, wire: Wire, tokens: int, **options: float) -> Report:
        """Run one load to its end; adds ``cpu_s`` to its report."""
        before = machine.cpu_s(wire.child.pid)
        report = wire.ask(self._folder, tokens, options).result()
        time.sleep(SETTLE_S)
        report["cpu_s"] = machine.cpu_s(wire.child.pid) - before
        if report["messages"] < report["tokens"]:
            raise SystemExit(f"{wire.name} puts several tokens into one message")
        if report["failed"] or report["refused"] or report["incomplete"]:
            counts = {key: report[key] for key in ("failed", "refused", "incomplete")}
            print(f"! {wire.name}: {counts} {report['error']}", file=sys.stderr)
        return report


SCENARIOS: dict[str, Callable[[Bench, Wire], Figures]] = {
    "saturated": Bench.saturated,
    "paced": Bench.paced,
    "rate": Bench.rate,
}


def run(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Every figure of every round, by wire; of the engine too."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        folder = Path(name)
        bench = Bench(folder, mock, arguments.seconds)
        asked: list[Wire] = []
        try:
            asked += wires.headrace(folder, mock.port)
            for peer in arguments.peers:
                asked.append(wires.grpc_peer(peer, folder, mock.port))
            chosen = [wire for wire in asked if not arguments.only or wire.name in arguments.only]
            chosen.append(wires.direct(mock))
            for number in range(arguments.rounds):
                for scenario in arguments.scenarios:
                    turn = number % len(chosen)
                    for wire in chosen[turn:] + chosen[:turn]:
                        for key, value in SCENARIOS[scenario](bench, wire).items():
                            figures.setdefault(wire.name, {}).setdefault(key, []).append(value)
        finally:
            for wire in asked:
                wire.child.stop()
    return figures


def medians(figures: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """By wire; first tokens less the engine's own, which is left out."""
    found = {
        name: {key: table.median(values) or 0.0 for key, values in row.items()}
        for name, row in figures.items()
    }
    engine = found.pop("engine")
    for row in found.values():
        for key in row:
            if "_first_" in f"_{key}":
                row[key] -= engine[key]
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser.add_argument("--only", type=names, default=[], help="wires and peers by their titles")
    parser.add_argument("--peers", type=names, default=[*wires.GRPC_PEERS])
    parser.add_argument("--scenarios", type=names, default=[*SCENARIOS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    figures = run(parsed())
    rows: list[list[object]] = []
    for name, row in medians(figures).items():
        mark = "keeps no log" if name in {peer.title for peer in wires.GRPC_PEERS.values()} else ""
        rows.append([name, mark, *(row.get(key) for key, _ in COLUMNS)])
    head = ["wire or server", "", *(title for _, title in COLUMNS)]
    table.show("A stream of events, by wire", head, rows, json_too=figures)


if __name__ == "__main__":
    main()
