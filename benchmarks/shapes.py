"""What the embedded engine's defaults are chosen by: threads, steps of the prefill, memory of the cache.

``threads``  decode threads × batch threads: tokens a second at each level, and of the prefill
``steps``    a long prompt in one request, or a batch a request (which is what makes leaving quick)
``memory``   the process's resident memory: each slot with a context of its own, or one shared by all

Every variant is an engine process of its own; in each round each is measured once, in an order that
rotates. Shown: the median, and the median of the ratios to the first variant of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks import table
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.engine import Work
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_child import ChildOptions
from headrace.engines.llama_options import LlamaOptions
from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Step, Wanted
from headrace.settings import load
from headrace.settings.model import EMBEDDED

Figures = dict[str, dict[str, list[float]]]
"""Tokens a second, by variant and by what was measured."""


def request(words: int, tokens: int) -> Request:
    """A prompt that no slot has."""
    text = f"{secrets.token_hex(8)} " + "water " * words
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return Request("m", "chat", (Message("user", text),), sampling=sampling, stream=True)


async def prefill(engine: LlamaEngine, words: int) -> float:
    """Prompt tokens a second."""
    began = time.monotonic()
    _, outcome = await engine.infer(Work(request(words, 1)))
    return outcome.usage.prompt_tokens / (time.monotonic() - began)


async def decode(engine: LlamaEngine, level: int, words: int, tokens: int) -> float:
    """Tokens a second of ``level`` answers at once, their prompts included."""
    began = time.monotonic()
    works = [Work(request(words, tokens)) for _ in range(level)]
    await asyncio.gather(*map(engine.infer, works))
    return level * tokens / (time.monotonic() - began)


async def model_file() -> ModelFile:
    def silent(step: Step) -> None:
        del step

    assert EMBEDDED.source
    wanted = Wanted(EMBEDDED.source, EMBEDDED.sha256, EMBEDDED.format)
    return await pull(load(environ=None).settings.cache_path, wanted, silent)


def variants(what: str, file: ModelFile, state: str) -> dict[str, LlamaOptions]:
    plain = LlamaOptions(
        name="m", model_path=file.path, state=state, partial_tokens=file.partial_tokens
    )
    change = msgspec.structs.replace
    if what == "steps":  # for a GPU no steps are made; there is none here, so all else is the same
        batch = 64
        return {
            "one request": change(plain, device="gpu", batch=batch),
            "in steps": change(plain, batch=batch),
        }
    return {
        f"{threads} decode, {batch} batch": change(plain, threads=threads, batch_threads=batch)
        for threads in (1, 2)
        for batch in (1, 2)
    }


async def measure(arguments: argparse.Namespace) -> Figures:
    file = await model_file()
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as state:
        options = variants(arguments.what, file, state)
        engines = {name: LlamaEngine(one, os.environ, 2) for name, one in options.items()}
        try:
            for engine in engines.values():
                await engine.load()
            names = list(engines)
            for number in range(arguments.rounds + 1):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    found = await look(engines[name], arguments)
                    for what, rate in found.items() if number else ():  # the first warms up
                        figures.setdefault(name, {}).setdefault(what, []).append(rate)
        finally:
            for engine in engines.values():
                await engine.close()
    return {name: figures[name] for name in names}


async def look(engine: LlamaEngine, arguments: argparse.Namespace) -> dict[str, float]:
    found = {"prefill": await prefill(engine, arguments.words)}
    short = 100 if arguments.what == "steps" else 4
    for level in map(int, arguments.levels.split(",")):
        found[f"{level} at once"] = await decode(engine, level, short, arguments.tokens)
    return found


def memory(path: str) -> list[list[Any]]:
    """Resident MiB of a process with 8 slots, idle after its start."""
    rows: list[list[Any]] = []
    for label, context, unified in (
        ("8 slots, 4,096 each", 4096, False),
        ("8 slots share 32,768", 32_768, True),
        ("8 slots share 4,096", 4096, True),
    ):
        told = ChildOptions(
            path, os.getpid(), context=context, slots=8, batch=64, ubatch=64, unified=unified
        )
        command = [sys.executable, "-m", "headrace.engines.llama_child"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(msgspec.json.encode(told) + b"\n")
            child.stdin.flush()
            assert "port" in json.loads(child.stdout.readline())
            status = Path(f"/proc/{child.pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            rows.append([label, int(line.split()[1]) / 1024])
            child.kill()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["threads", "steps", "memory"])
    parser.add_argument("--levels", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--words", type=int, default=500, help="of the prefill's prompt")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.what == "memory":
            rows = memory(runner.run(model_file()).path)
            table.show("Memory of the engine's process", ["cache", "MiB"], rows, json_too=rows)
            return
        figures = runner.run(measure(arguments))
    first, *_ = figures.values()
    rows = []
    for name, found in figures.items():
        row: list[Any] = [name]
        for what, rates in found.items():
            ratios = [mine / other for mine, other in zip(rates, first[what], strict=True)]
            row.append(f"{table.median(rates):.0f} ({table.median(ratios):.2f})")
        rows.append(row)
    head = ["variant", *(f"{what}, tok/s" for what in first)]
    table.show(f"The embedded engine: {arguments.what}", head, rows, json_too=figures)


if __name__ == "__main__":
    main()
