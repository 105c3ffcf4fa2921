"""The table and the picture of simulated batching."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.batching.simulated import Engine, Load, Outcome, Simulation, Waiting, options
from headrace.scheduling.batcher import Batcher, BatchOptions

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


def _draw(results: Mapping[str, Mapping[str, Mapping[str, Outcome]]], png: Path) -> None:
    """A row of pictures a load: throughput and p99 over the batch size, a line a wait; dashed: the usual batcher."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: it needs matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(len(results), 2, figsize=(11, 3 * len(results)))
    colours = pyplot.get_cmap("viridis")
    for axes, (title, by_kind) in zip(all_axes, results.items(), strict=True):
        for name, style in (("Headrace", "-"), ("usual", "--")):
            for number, wait_ms in enumerate(WAITS_MS):
                sizes = [size for size in SIZES if f"{size}/{wait_ms:g}" in by_kind[name]]
                found = [by_kind[name][f"{size}/{wait_ms:g}"] for size in sizes]
                look = {"color": colours(number / len(WAITS_MS)), "linestyle": style}
                axes[0].plot(sizes, [one.per_s for one in found], **look)
                label = f"{name}, wait {wait_ms:g} ms"
                axes[1].plot(sizes, [1e3 * one.p99_s for one in found], label=label, **look)
        for axis, what in zip(axes, ("rows/s", "p99 ms"), strict=True):
            axis.set(title=title, xlabel="largest batch", ylabel=what, xscale="log")
            axis.set_xticks(SIZES, [str(size) for size in SIZES])
            axis.grid(alpha=0.3)
    all_axes[0][1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(png, dpi=110)
    print(f"drawn: {png}")
