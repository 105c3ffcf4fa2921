"""``python -m benchmarks.tracing``: what traces cost a server that records one request of a hundred.

Two servers run at once on one core, in front of the mock engine; one exports spans. One at a time is loaded as in
``benchmarks.gateway``, in pairs whose order changes. CPU is that of all threads, the exporter's among them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.collector import collecting
from benchmarks.gateway import Bench
from benchmarks.headrace import MOCK_MODEL, Server
from benchmarks.load import Mock
from benchmarks.peers import Gateway

SCENARIOS: dict[str, Callable[[Bench, Gateway], Mapping[str, float]]] = {
    "request": Bench.request,
    "saturated": Bench.saturated,
    "paced": Bench.paced,
}
FIGURES = ("us_request", "us_event", "us_paced")


def started(home: Path, mock: Mock, environment: Mapping[str, str]) -> Gateway:
    home.mkdir()
    models = MOCK_MODEL.format(mock_port=mock.port)
    server = Server(home, models, environment=environment)
    try:
        server.await_ready()
    except RuntimeError:
        server.child.stop()
        raise
    return server.gateway._replace(crash=None)  # nothing is read back here


def measured(
    bench: Bench, gateways: Sequence[Gateway], scenario: str, pairs: int
) -> list[tuple[float, float]]:
    """µs without and with traces, of each pair."""
    found = []
    for number in range(pairs):
        order = (0, 1) if number % 2 else (1, 0)
        figures = {which: SCENARIOS[scenario](bench, gateways[which]) for which in order}
        plain, traced = (
            next(figures[which][name] for name in FIGURES if name in figures[which])
            for which in (0, 1)
        )
        found.append((plain, traced))
    return found


def one_start(arguments: argparse.Namespace, found: dict[str, list[tuple[float, float]]]) -> None:
    """Pairs of two servers, added to those of other servers: no two processes cost quite the same."""
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        bench = Bench(Path(name), mock, arguments.seconds)
        gateways: list[Gateway] = []
        try:
            for environment in ({}, collecting("traceidratio", arguments.share)):
                home = bench.folder / f"headrace-{len(gateways)}"
                gateways.append(started(home, mock, environment))
            for scenario in arguments.only.split(","):
                pairs = measured(bench, gateways, scenario, arguments.pairs)
                found.setdefault(scenario, []).extend(pairs)
        finally:
            for gateway in gateways:
                gateway.child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, by comma")
    parser.add_argument("--share", type=float, default=0.01, help="of the requests, recorded")
    parser.add_argument("--starts", type=int, default=6, help="of two servers each")
    parser.add_argument("--pairs", type=int, default=8, help="of each start and scenario")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.starts):
        one_start(arguments, found)
    rows = []
    for scenario, pairs in found.items():
        plain, traced = zip(*pairs, strict=True)
        ratios = [two / one for one, two in pairs]
        low, high = table.interval(ratios) or (min(ratios), max(ratios))
        ratio = f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
        rows.append([scenario, statistics.median(plain), statistics.median(traced), ratio])
    head = ["scenario", "µs without", f"µs with {arguments.share:.0%} recorded", "ratio (95 %)"]
    table.show("CPU a request, and an event, with traces", head, rows, json_too=None)


if __name__ == "__main__":
    main()
