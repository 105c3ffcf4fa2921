"""``python -m benchmarks.limits``: what limits cost, how well they hold, and what becomes of who is beyond them.

overshoot  an hour, simulated, of one tenant that asks for five times what its limit of tokens allows. Charged after
           the answer by a counter of each minute, as gateways do, and by a token bucket; and reserved before it, by
           the limiter that the server has
cost       µs of CPU that the limiter takes for a request, from its arrival to its end, by what is limited
overload   a server in front of the mock engine: one tenant asks for ten times what it may, another has streams under
           way. What a refusal takes and costs, and whether the other one notices
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, table
from benchmarks.headrace import MOCK_MODEL, Server
from benchmarks.load import Load, Mock, Report, chat_body
from benchmarks.overshoot import (
    TIMES,
    TOKENS_PER_MINUTE,
    BucketAfter,
    CounterAfter,
    Reserved,
    simulate,
)
from headrace.admission.day import DayBudgets
from headrace.admission.limiter import Limiter, Rules
from headrace.admission.usage_journal import UsageJournal
from headrace.domain.errors import HeadraceError
from headrace.domain.limits import Limits


def overshoot(rounds: int) -> dict[str, Any]:
    kinds: dict[str, Callable[[], CounterAfter | BucketAfter | Reserved]] = {
        "charged after the answer, a counter of each minute": CounterAfter,
        "charged after the answer, a token bucket": BucketAfter,
        "reserved before it (Headrace)": Reserved,
    }
    rows, results = [], {}
    for name, kind in kinds.items():
        runs = [simulate(kind(), seed) for seed in range(rounds)]
        hour = table.median([run.tokens / (TOKENS_PER_MINUTE * 60) for run in runs])
        worst = table.median([run.worst / TOKENS_PER_MINUTE for run in runs])
        begun = table.median([run.begun for run in runs])
        cut = table.median([100 * run.cut / run.begun for run in runs])
        results[name] = {"hour": hour, "worst_minute": worst, "begun": begun, "cut_percent": cut}
        rows.append([name, hour, worst, begun, cut])
    head = ["", "hour × limit", "worst minute × limit", "answers", "cut short %"]
    title = f"One tenant at {TIMES} × its limit of {TOKENS_PER_MINUTE:,} tokens a minute, simulated"
    table.show(title, head, rows, json_too=results)
    return results


# Cost.

PLENTY = 10**12
COSTS = {
    "requests a minute": Limits(requests_per_minute=PLENTY),
    "requests and tokens a minute": Limits(requests_per_minute=PLENTY, tokens_per_minute=PLENTY),
    "the same, and concurrent": Limits(
        requests_per_minute=PLENTY, tokens_per_minute=PLENTY, concurrent=PLENTY
    ),
    "the same, and tokens a day, kept": Limits(
        requests_per_minute=PLENTY,
        tokens_per_minute=PLENTY,
        concurrent=PLENTY,
        tokens_per_day=PLENTY,
    ),
}
REQUESTS = 50_000


def cost(folder: Path) -> dict[str, float]:
    results = {}
    for name, limits in COSTS.items():
        days = DayBudgets(UsageJournal(folder / "usage"))
        days.load(time.time())
        limiter = Limiter(days)
        limiter.replace(Rules(tenants={"a": limits}))
        results[name] = min(_cost(limiter) for _ in range(5))
        days.close()
    refusing = Limiter(DayBudgets())
    refusing.replace(Rules(tenants={"a": Limits(requests_per_minute=1)}))
    results["a refusal"] = min(_cost(refusing) for _ in range(5))
    rows = [[name, value] for name, value in results.items()]
    table.show("The limiter alone, from arrival to end", ["limited", "µs"], rows, json_too=results)
    return results


def _cost(limiter: Limiter) -> float:
    wall = time.time()
    began = time.process_time()
    for number in range(REQUESTS):
        now = float(number)
        plan = limiter.plan("a", "", "m", now)
        assert plan is not None
        try:
            taken = plan.reserve("gen_01JABCDEFGHJKMNPQRSTVWXYZ0", None, 200, 64, 1, 1.0, wall)
        except HeadraceError:
            continue
        taken.settle(264, 1.0)
    return (time.process_time() - began) / REQUESTS * 1e6


# Overload.

TENANTS = """
[[tenants]]
name = "greedy"
keys = ["sk-greedy"]

[tenants.limits]
requests_per_minute = {requests}
tokens_per_minute = {tokens}
burst_s = 1.0

[[tenants]]
name = "quiet"
keys = ["sk-quiet"]
"""
STREAMS_PER_S, STREAM_TOKENS, GAP_MS = 40, 50, 20.0
"""Of the quiet tenant."""


class Overload:
    """A server, its mock engine, and how many requests a second the greedy tenant may make."""

    def __init__(self, folder: Path, mock: Mock, allowed: int, seconds: float) -> None:
        self._folder = folder
        self._mock = mock
        self._allowed = allowed
        self._seconds = seconds
        tenants = TENANTS.format(requests=allowed * 60, tokens=allowed * 60 * 1000)
        self._server = Server(folder, tenants + MOCK_MODEL.format(mock_port=mock.port))

    def __enter__(self) -> Overload:
        self._server.await_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.child.stop()

    def run(self, times: int) -> tuple[Report | None, Report, float]:
        """The greedy tenant's report (None where it asks 0 ``times`` what it may), the quiet one's, and the server's
        CPU seconds."""
        self._mock.config(first_ms=20, gap_ms=GAP_MS)
        before = machine.cpu_s(self._server.child.pid)
        steady = {"rate": STREAMS_PER_S, "connections": 200, "seconds": self._seconds, "warm": 1.5}
        quiet = self._load("quiet", chat_body(stream=True, tokens=STREAM_TOKENS), steady)
        greedy = None
        if times:
            time.sleep(1.0)
            asked = {"connections": 64, "rate": times * self._allowed, "seconds": self._seconds - 1}
            greedy = self._load("greedy", chat_body(stream=False, tokens=1), asked)
        report = greedy.result() if greedy is not None else None
        return report, quiet.result(), machine.cpu_s(self._server.child.pid) - before

    def _load(self, tenant: str, body: dict[str, Any], options: dict[str, float]) -> Load:
        folder = self._folder / tenant
        folder.mkdir(exist_ok=True)
        key = (f"Authorization: Bearer sk-{tenant}",)
        return Load(folder, self._server.port, [body], key, options)


def overload(folder: Path, allowed: int, seconds: float, rounds: int) -> dict[str, Any]:
    figures: dict[str, dict[str, list[float]]] = {}
    with Mock(folder) as mock, Overload(folder, mock, allowed, seconds) as place:
        for _ in range(rounds):
            alone_cpu = 0.0
            for times in (0, 1, 10):
                greedy, quiet, cpu = place.run(times)
                row = figures.setdefault(f"{times} ×" if times else "no load", {})
                note = row.setdefault
                note("gap_p99", []).append(quiet["gap"]["p99"])
                note("first_p99", []).append(quiet["first_token"]["p99"])
                if quiet["failed"] or quiet["incomplete"]:
                    raise SystemExit(f"the quiet tenant's streams failed: {quiet['error']}")
                alone_cpu = alone_cpu if times else cpu
                if greedy is None:
                    continue
                note("served", []).append(greedy["ok"] / greedy["seconds"])
                if (limited := greedy["limited"]) is not None:
                    note("refused", []).append(limited["n"] / greedy["seconds"])
                    note("refusal_p50", []).append(limited["p50"])
                    note("refusal_p99", []).append(limited["p99"])
                    answered = limited["n"] + greedy["ok"]
                    note("us_request", []).append((cpu - alone_cpu) * 1e6 / answered)
    medians = {
        name: {key: table.median(values) for key, values in row.items()}
        for name, row in figures.items()
    }
    columns = {
        "served": "served/s",
        "refused": "refused/s",
        "refusal_p50": "refusal p50 ms",
        "refusal_p99": "refusal p99 ms",
        "us_request": "µs CPU a request",
        "gap_p99": "others' gap p99 ms",
        "first_p99": "others' first token p99 ms",
    }
    rows = [[name, *(row.get(key) for key in columns)] for name, row in medians.items()]
    title = f"A tenant that may ask {allowed} times a second, and {STREAMS_PER_S} streams a second of another"
    table.show(title, ["asks", *columns.values()], rows, json_too=figures)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", default="overshoot,cost,overload")
    parser.add_argument("--allowed", type=int, default=100, help="requests a second")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "overshoot" in parts:
            overshoot(arguments.rounds)
        if "cost" in parts:
            cost(folder)
        if "overload" in parts:
            overload(folder, arguments.allowed, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
