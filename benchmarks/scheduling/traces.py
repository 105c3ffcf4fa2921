"""Readers of published traces, each in its authors' format. Nothing of them is part of this project."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.scheduling.arrival import Arrival


class Measured(msgspec.Struct, frozen=True):
    """A request that a real engine served."""

    tenant: str
    at: float
    first_token_s: float
    latency_s: float


def vtc(data: Path) -> list[Arrival]:
    """1,500 requests of 27 tenants in 600 s (LMSYS chat arena, replayed by the authors of VTC)."""
    return [
        Arrival(
            at=float(row["req_time_s"]),
            tenant=row["tenant"],
            prompt_tokens=int(row["prompt_len"]),
            output_tokens=int(row["output_len"]),
        )
        for row in _rows(data / "traces/vtc/vtc_lmsys_real_trace.csv")
    ]


def measured_a10g(data: Path, scheduler: str) -> list[Measured]:
    """What became of them on an A10G; ``scheduler`` as the file names it."""
    return [
        Measured(
            tenant=row["tenant"],
            at=float(row["req_time_s"]),
            first_token_s=float(row["first_token_latency_s"]),
            latency_s=float(row["request_latency_s"]),
        )
        for row in _rows(data / "traces/vtc/measured_a10g_real_trace.csv")
        if row["scheduler"] == scheduler
    ]


def azure(data: Path, kind: str) -> list[Arrival]:
    """One hour of ``conv``ersation or ``code``; it has no tenants."""
    rows = list(_rows(data / f"traces/azure2023/AzureLLMInferenceTrace_{kind}.csv"))
    times = [datetime.fromisoformat(row["TIMESTAMP"]) for row in rows]
    return [
        Arrival(
            at=(time - times[0]).total_seconds(),
            tenant="",
            prompt_tokens=int(row["ContextTokens"]),
            output_tokens=int(row["GeneratedTokens"]),
        )
        for time, row in zip(times, rows, strict=True)
    ]


def mooncake(data: Path, kind: str) -> list[Arrival]:
    """``conversation`` or ``synthetic``; the tenant is the conversation: the first block that not all have."""
    path = data / f"traces/mooncake/{kind}_trace.jsonl"
    with path.open() as lines:
        rows = [json.loads(line) for line in lines]
    shared = set.intersection(*(set(row["hash_ids"]) for row in rows))
    return [
        Arrival(
            at=row["timestamp"] / 1000,
            tenant=str(next((b for b in row["hash_ids"] if b not in shared), "")),
            prompt_tokens=row["input_length"],
            output_tokens=max(1, row["output_length"]),
            blocks=tuple(row["hash_ids"]),
        )
        for row in rows
    ]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as lines:
        yield from csv.DictReader(lines)
