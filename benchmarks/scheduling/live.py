"""Tenants at the real embedded model: what a heavy one does to the first tokens of others. Each policy has a server.

``light``  one tenant asks at random times for a tenth of what the engine can serve; first alone, then beside one
           with ten times its load, which is more than the engine has left
``abuse``  five tenants ask for 16 % of the capacity each; then one of them for ten times that. With ``--limit``
           (and ``--capacity``, as measured without) each may use so many tokens a minute
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks import table
from benchmarks.child import free_port
from benchmarks.headrace import Server

MODEL = """
[scheduling]
policy = "{policy}"

[[models]]
name = "smollm2-135m"
source = "{source}"
sha256 = "{sha256}"
format = "{format}"
slots = {slots}
express = {express}
"""
TENANT = """
[[tenants]]
name = "{name}"
keys = ["sk-{name}"]
ttft_ms = {target_ms}
"""
LIMIT = """
[tenants.limits]
tokens_per_minute = {limit}
burst_s = 10
"""
HEAVY = "heavy"
PHASES: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "light": ({"light": 0.1}, {"light": 0.1, HEAVY: 1.0}),
    "abuse": (
        {HEAVY: 0.16, **{f"t{number}": 0.16 for number in range(4)}},
        {HEAVY: 1.6, **{f"t{number}": 0.16 for number in range(4)}},
    ),
}
"""Load of each tenant, as a part of what the engine can serve: in the first phase, and in the second."""
Firsts = dict[str, list[float]]
"""Seconds to first token, by tenant."""


async def ask(client: httpx.AsyncClient, key: str, words: int, tokens: int) -> float | None:
    """Seconds to the first token; the answer is read to its end. None: it was refused."""
    text = f"{secrets.token_hex(4)} " + "water " * words
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    began = time.monotonic()
    first, said = 0.0, ""
    headers = {"authorization": f"Bearer {key}"}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return None
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            said = line if "error" in line else said
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.monotonic() - began
    if not first:
        raise RuntimeError(f"an answer without a token: {said}")
    return first


class Run:
    """One policy's server: what it can serve, and the phases."""

    def __init__(self, client: httpx.AsyncClient, arguments: argparse.Namespace) -> None:
        self._client = client
        self._words, self._tokens = arguments.words, arguments.tokens
        self._slots, self._seconds = arguments.slots, arguments.seconds

    async def capacity(self, key: str) -> float:
        """Requests a second with all slots busy, after a round that warms up."""
        rate = 0.0
        for count in (self._slots, 24 * self._slots):
            began = time.monotonic()
            answers = await asyncio.gather(*(self._ask(key) for _ in range(count)))
            rate = sum(one is not None for one in answers) / (time.monotonic() - began)
        return rate

    async def phase(self, rates: Mapping[str, float], number: int) -> Firsts:
        arrivals = (self._arrivals(name, rate, number) for name, rate in rates.items())
        return dict(zip(rates, await asyncio.gather(*arrivals), strict=True))

    async def _ask(self, name: str) -> float | None:
        return await ask(self._client, f"sk-{name}", self._words, self._tokens)

    async def _arrivals(self, name: str, rate: float, number: int) -> list[float]:
        """Requests at random times (Poisson), others in each round; all are waited for."""
        draw = random.Random(f"{name} {number}")
        ends = time.monotonic() + self._seconds
        tasks = []
        while time.monotonic() < ends:
            await asyncio.sleep(draw.expovariate(rate))
            tasks.append(asyncio.create_task(self._ask(name)))
        return [one for one in await asyncio.gather(*tasks) if one is not None]


async def measure(port: int, arguments: argparse.Namespace) -> tuple[Firsts, Firsts, float]:
    limits = httpx.Limits(max_connections=2000)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        run = Run(client, arguments)
        first, second = PHASES[arguments.case]
        capacity = arguments.capacity or await run.capacity(next(iter(first)))
        found: tuple[Firsts, Firsts] = {}, {}
        for number in range(arguments.rounds):
            for firsts, phase in zip(found, (first, second), strict=True):
                rates = {name: part * capacity for name, part in phase.items()}
                for name, values in (await run.phase(rates, number)).items():
                    firsts.setdefault(name, []).extend(values)
    return *found, capacity


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def row(
    policy: str, phase: str, who: str, values: list[float], base: list[float] | None
) -> list[object]:
    p99 = quantile(values, 0.99)
    ratio = "" if base is None else f"{p99 / quantile(base, 0.99):.2f}"
    return [policy, phase, who, len(values), statistics.median(values), p99, ratio]


def rows_of(policy: str, before: Firsts, after: Firsts) -> list[list[object]]:
    def others(firsts: Firsts) -> list[float]:
        return [one for name, values in firsts.items() if name != HEAVY for one in values]

    found = [
        row(policy, "before", "others", others(before), None),
        row(policy, "after", "others", others(after), others(before)),
    ]
    for phase, firsts in (("before", before), ("after", after)):
        if HEAVY in firsts:
            found.append(row(policy, phase, HEAVY, firsts[HEAVY], None))
    return found


def config(policy: str, arguments: argparse.Namespace) -> str:
    from headrace.settings.model import EMBEDDED

    model = MODEL.format(
        policy=policy,
        source=EMBEDDED.source,
        sha256=EMBEDDED.sha256,
        format=EMBEDDED.format,
        slots=arguments.slots,
        express=str(arguments.express).lower(),
    )
    tenants = PHASES[arguments.case][1]
    tenant = TENANT + LIMIT if arguments.limit else TENANT
    values = {"target_ms": arguments.target_ms, "limit": arguments.limit}
    return model + "".join(tenant.format(name=name, **values) for name in tenants)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("case", choices=PHASES)
    parser.add_argument("--policies", default="fcfs,fair,fair-headroom")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=1, help="of both phases, by turns")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--express", action="store_true", help="an engine for who has little time")
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--target-ms", type=float, default=500, help="for the first token")
    parser.add_argument("--capacity", type=float, default=0.0, help="requests a second")
    parser.add_argument("--limit", type=int, default=0, help="tokens a minute of each tenant")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    rows: list[list[object]] = []
    found = {}
    rates = []
    for policy in arguments.policies.split(","):
        with tempfile.TemporaryDirectory() as name:
            text = config(policy, arguments)
            server = Server(Path(name), text, "0,1", "", grpc_port=free_port())
            try:
                server.await_ready()
                before, after, capacity = asyncio.run(measure(server.port, arguments))
            finally:
                server.child.stop()
        found[policy] = {"before": before, "after": after, "capacity": capacity}
        rates.append(capacity)
        rows += rows_of(policy, before, after)
    head = ["policy", "phase", "tenant", "requests", "first token p50 s", "p99 s", "to before"]
    rate = statistics.median(rates)
    title = f"{arguments.case}: a heavy tenant at the embedded model, which serves {rate:.2f} requests a second"
    table.show(title, head, rows, json_too=found)


if __name__ == "__main__":
    main()
