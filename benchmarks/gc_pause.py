"""What a large heap costs a token: 200 streams with two million live objects, and with none.

The objects are kept by a hook of the server, so that they are there before it freezes its heap. Shown is
the gap between two tokens of a stream; the engine sends one every 20 ms. Runs are interleaved.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.headrace import HOOKS, MOCK_MODEL, Server
from benchmarks.load import Load, Mock, Report, chat_body

STREAMS, TOKENS = 200, 300
BALLAST = """
[[hooks]]
class = "benchmarks.hooks:Ballast"
objects = OBJECTS
"""


def measure(folder: Path, mock: Mock, objects: int) -> Report:
    """One run on a fresh server."""
    models = MOCK_MODEL.format(mock_port=mock.port)
    server = Server(folder, models, hooks=HOOKS + BALLAST.replace("OBJECTS", str(objects)))
    try:
        server.await_ready()
        gateway = server.gateway
        mock.config(first_ms=20, gap_ms=20)
        options = {"connections": STREAMS, "ramp": STREAMS, "warm": 1.5, "timeout": 30}
        body = chat_body(stream=True, tokens=TOKENS)
        return Load(folder, gateway.port, [body], gateway.headers, options).result()
    finally:
        server.child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    gaps: dict[int, list[dict[str, float]]] = {0: [], arguments.objects: []}
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        for number in range(arguments.rounds):
            for objects, found in gaps.items():
                folder = Path(name) / f"{objects}-{number}"
                folder.mkdir()
                report = measure(folder, mock, objects)
                if report["failed"] or report["incomplete"]:
                    raise SystemExit(f"{report['failed']} streams failed: {report['error']}")
                found.append(report["gap"])
    rows: list[list[Any]] = [
        [
            f"{objects:,}",
            *(table.median([g[q] for g in found]) for q in ("p50", "p99", "p999", "max")),
        ]
        for objects, found in gaps.items()
    ]
    rows.append(["ratio", *(_ratio(rows[1][i], rows[0][i]) for i in range(1, 5))])
    head = ["live objects", "gap p50 ms", "p99 ms", "p99.9 ms", "max ms"]
    table.show("Gaps between tokens with a large heap", head, rows, json_too=gaps)


def _ratio(large: float, empty: float) -> float:
    return large / empty


if __name__ == "__main__":
    main()
