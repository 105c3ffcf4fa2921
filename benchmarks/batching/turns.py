"""The server and the loop without one by turns, on the same core: what share of the loop's throughput the server has.

The server is idle while the loop runs. Each of its rounds is compared with the loop's before and after it, so that a
machine whose pace changes from minute to minute does not count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import table
from benchmarks.batching import peers
from benchmarks.batching.peers import Conditions, Peer, Place
from benchmarks.batching.texts import texts
from benchmarks.load import Load

SIZES = (8, 16)
"""Rows of the loop's runs, by turns: its best ones."""


def compare(conditions: Conditions, rounds: int) -> None:
    batches = conditions.batches or peers.BEST["Headrace"]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), conditions.cores, batches, conditions.threads)
        peer = peers.headrace(place)
        try:
            loop, served = [_loop(conditions, 0)], []
            for number in range(1, rounds + 1):
                served.append(_served(peer, place, conditions))
                loop.append(_loop(conditions, number))
        finally:
            peer.child.stop()
    shares = [
        200 * one / (before + after)
        for one, before, after in zip(served, loop, loop[1:], strict=False)
    ]
    rows = [
        [name, table.median(found), min(found), max(found)]
        for name, found in (("bare loop", loop), ("Headrace", served), ("share %", shares))
    ]
    of = "8 to 48 tokens" if conditions.mixed else "32 tokens"
    title = f"MiniLM int8, texts of {of}, {conditions.clients} clients, {rounds} rounds by turns"
    results = {"loop": loop, "served": served, "shares": shares}
    table.show(title, ["", "requests/s (median)", "least", "most"], rows, json_too=results)


def _loop(conditions: Conditions, number: int) -> float:
    return peers.bare(conditions, SIZES[number % len(SIZES)]).per_s


def _served(peer: Peer, place: Place, conditions: Conditions) -> float:
    bodies = [peer.body(text) for text in texts(mixed=conditions.mixed)]
    options: dict[str, float] = {
        "connections": conditions.clients,
        "seconds": conditions.seconds,
        "warm": peers.WARM * conditions.seconds,
    }
    report = Load(place.folder, peer.port, bodies, peer.headers, options, peer.path).result()
    if report.get("failed"):
        raise RuntimeError(f"{report['failed']} requests failed: {report}")
    per_s: float = report["requests_per_s"]
    return per_s
