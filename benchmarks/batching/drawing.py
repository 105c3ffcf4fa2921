"""``python -m benchmarks.batching.drawing PNG < RESULTS``: what ``benchmarks.batching.simulating`` found, as a picture.
Runs in an environment that has matplotlib, and nothing of Headrace.

A row of pictures a load: throughput and p99 over the batch size, a line a wait; dashed: the usual batcher.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

STYLES = {"Headrace": "-", "usual": "--"}
PER_S, P99_S = 0, 2
"""Where an outcome has these."""

Kinds = Mapping[str, Mapping[str, Any]]
"""By the batcher's name, then by batch size and wait: an outcome."""


def draw(results: Mapping[str, Kinds], png: str) -> None:
    figure, all_axes = pyplot.subplots(len(results), 2, figsize=(12, 3 * len(results)))
    for axes, (title, kinds) in zip(all_axes, results.items(), strict=True):
        _lines(axes, kinds)
        for axis, what in zip(axes, ("rows/s", "p99 ms"), strict=True):
            axis.set(title=title, xlabel="largest batch", ylabel=what)
            axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
            axis.grid(alpha=0.3)
    lines, labels = all_axes[0][1].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=8, loc="lower center", ncols=len(labels) // 2)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(png, dpi=110)


def _lines(axes: Any, kinds: Kinds) -> None:
    colours = pyplot.get_cmap("viridis")
    for name, found in kinds.items():
        waits = sorted({float(key.split("/")[1]) for key in found})
        for number, wait_ms in enumerate(waits):
            line = {
                int(key.split("/")[0]): outcome
                for key, outcome in found.items()
                if float(key.split("/")[1]) == wait_ms
            }
            look = {"color": colours(number / len(waits)), "linestyle": STYLES[name], "marker": "."}
            sizes = [str(size) for size in line]
            label = f"{name}, wait {wait_ms:g} ms"
            axes[0].plot(sizes, [one[PER_S] for one in line.values()], **look)
            axes[1].plot(sizes, [1e3 * one[P99_S] for one in line.values()], label=label, **look)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
