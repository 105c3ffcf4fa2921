"""Two tenants at the real embedded model: what a heavy one does to the first tokens of a light one.

The light tenant asks at random times, at a tenth of what the engine can serve; first alone, then beside a heavy one
with ten times its load, which is more than the engine has left. Each policy has a server of its own. Shown: the light
tenant's time to first token in both phases, and the heavy one's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

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

[[tenants]]
name = "light"
keys = ["sk-light"]
ttft_ms = {target_ms}

[[tenants]]
name = "heavy"
keys = ["sk-heavy"]
ttft_ms = 2000
"""


class Phase(NamedTuple):
    """Seconds to first token, of each tenant."""

    light: list[float]
    heavy: list[float]


async def ask(client: httpx.AsyncClient, key: str, words: int, tokens: int) -> float:
    """Seconds to the first token; the answer is read to its end."""
    text = f"{secrets.token_hex(4)} " + "water " * words
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    began = time.monotonic()
    first = 0.0
    headers = {"authorization": f"Bearer {key}"}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.monotonic() - began
    return first


async def arrivals(
    client: httpx.AsyncClient, key: str, rate: float, seconds: float, words: int, tokens: int
) -> list[float]:
    """Requests at random times (Poisson) for so long; all are waited for."""
    draw = random.Random(key)
    ends = time.monotonic() + seconds
    tasks = []
    while time.monotonic() < ends:
        await asyncio.sleep(draw.expovariate(rate))
        tasks.append(asyncio.create_task(ask(client, key, words, tokens)))
    return list(await asyncio.gather(*tasks))


async def measure(port: int, arguments: argparse.Namespace) -> tuple[Phase, Phase, float]:
    limits = httpx.Limits(max_connections=1000)
    url = f"http://127.0.0.1:{port}"
    words, tokens, seconds = arguments.words, arguments.tokens, arguments.seconds
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        began = time.monotonic()
        count = 4 * arguments.slots
        await asyncio.gather(*(ask(client, "sk-light", words, tokens) for _ in range(count)))
        capacity = count / (time.monotonic() - began)  # requests a second
        rate = capacity / 10
        alone = await arrivals(client, "sk-light", rate, seconds, words, tokens)
        light, heavy = await asyncio.gather(
            arrivals(client, "sk-light", rate, seconds, words, tokens),
            arrivals(client, "sk-heavy", 10 * rate, seconds, words, tokens),
        )
    return Phase(alone, []), Phase(light, heavy), capacity


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", default="fcfs,fair,fair-headroom")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--target-ms", type=float, default=500, help="the light tenant's")
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    from headrace.settings.tree import EMBEDDED

    rows: list[list[object]] = []
    found = {}
    for policy in arguments.policies.split(","):
        with tempfile.TemporaryDirectory() as name:
            config = MODEL.format(
                policy=policy,
                source=EMBEDDED.source,
                sha256=EMBEDDED.sha256,
                format=EMBEDDED.format,
                slots=arguments.slots,
                target_ms=arguments.target_ms,
            )
            server = Server(Path(name), config, "0,1", "", grpc_port=free_port())
            try:
                server.await_ready()
                alone, beside, capacity = asyncio.run(measure(server.port, arguments))
            finally:
                server.child.stop()
        found[policy] = {"alone": alone, "beside": beside, "capacity": capacity}
        for who, values, base in (
            ("light, alone", alone.light, None),
            ("light, beside heavy", beside.light, alone.light),
            ("heavy", beside.heavy, None),
        ):
            p99 = quantile(values, 0.99)
            ratio = "" if base is None else f"{p99 / quantile(base, 0.99):.2f}"
            rows.append([policy, who, len(values), statistics.median(values), p99, ratio])
    head = ["policy", "tenant", "requests", "first token p50 s", "p99 s", "p99 to alone"]
    table.show(
        "A light and a heavy tenant, 1 : 10, at the embedded model", head, rows, json_too=found
    )


if __name__ == "__main__":
    main()
