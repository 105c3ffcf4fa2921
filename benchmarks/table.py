"""How figures are shown: a Markdown table that a README can quote, or JSON."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import machine


def show(
    title: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, json_too: Any
) -> None:
    """Print the table with the machine, the date and the command; ``json_too`` instead under ``--json``."""
    if "--json" in sys.argv:
        print(json.dumps({"title": title, "machine": machine.description(), "results": json_too}))
        return
    print(f"\n{title}\n{machine.description()}; `python -m {_module()} {' '.join(sys.argv[1:])}`\n")
    cells = [[_text(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    sys.stdout.flush()


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % interval of the median by order statistics (distribution-free); None below six values."""
    ordered, count = sorted(values), len(values)
    if count < 6:
        return None
    depth = max(1, int((count - 1.96 * count**0.5) / 2))
    return ordered[depth - 1], ordered[count - depth]


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else "benchmarks"


def _text(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return (
            f"{cell:,.0f}"
            if abs(cell) >= 100
            else f"{cell:.1f}"
            if abs(cell) >= 10
            else f"{cell:.2f}"
        )
    return str(cell)
