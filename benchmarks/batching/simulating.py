"""The table and the picture of simulated batching."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.batching.simulated import Engine, Load, Simulation, Waiting, options
from benchmarks.headrace import REPOSITORY
from benchmarks.peers import Package, environment
from headrace.scheduling.batcher import Batcher, BatchOptions

MATPLOTLIB = Package("matplotlib", "3.11.2")
SIZES = (1, 4, 8, 16, 32, 64)
WAITS_MS = (0.0, 1.0, 2.0, 5.0, 10.0)
ENGINE = Engine()
LOADS = {
    "64 clients, each asks again at once": Load(clients=64),
    "8 clients, each asks again at once": Load(clients=8),
    "1 client": Load(clients=1),
    "by chance, half of what the engine can": Load(per_s=0.5 * ENGINE.best(64)),
    "by chance, 95 % of what the engine can": Load(per_s=0.95 * ENGINE.best(64)),
}
KINDS: Mapping[str, Callable[[BatchOptions], Batcher[int]]] = {
    "Headrace": Batcher,
    "usual": Waiting,
}


def simulate(requests: int, png: Path) -> None:
    results: dict[str, Any] = {}
    rows = []
    for title, load in LOADS.items():
        for size in SIZES:
            if load.per_s > ENGINE.best(size):
                continue  # its line would grow without end
            for wait_ms in WAITS_MS:
                cells: list[object] = [title, size, wait_ms]
                for name, kind in KINDS.items():
                    found = Simulation(load, ENGINE, options(size, wait_ms), requests, kind).run()
                    results.setdefault(title, {}).setdefault(name, {})[f"{size}/{wait_ms:g}"] = (
                        found
                    )
                    cells += [found.per_s, 1e3 * found.p50_s, 1e3 * found.p99_s, found.rows]
                rows.append(cells)
    of_each = ["rows/s", "p50 ms", "p99 ms", "rows a run"]
    head = ["load", "batch size", "wait ms"]
    head += [f"{name}: {one}" for name in KINDS for one in of_each]
    cost = f"{1e3 * ENGINE.run_s:g} ms a run and {1e3 * ENGINE.row_s:g} ms a row"
    table.show(f"Batching, simulated: {cost}", head, rows, json_too=results)
    _draw(results, png)


def _draw(results: Mapping[str, Any], png: Path) -> None:
    python = str(environment(MATPLOTLIB) / "bin/python")
    command = [python, "-m", "benchmarks.batching.drawing", str(png.absolute())]
    subprocess.run(command, check=True, input=json.dumps(results), text=True, cwd=REPOSITORY)
    print(f"drawn: {png}", file=sys.stderr)
