"""Going on from a cut: does the answer lose or repeat a token, and is it the answer it would have been?

Each prompt is answered once without interruption (greedy, one request at a time), then cut after a
quarter, half and three quarters of its tokens and continued by the engine from the token ids so far. A
continued answer must have exactly as many tokens as the whole one and begin with what was there at the
cut; whether the rest is equal depends on rounding, and is counted. Before each run another prompt takes
the engine's only slot, so that the prefix is computed anew, as on a fresh engine, and not found in the
slot's cache. An exact run is computed from nothing, so one from the same tokens is not made again: three
whole answers of a prompt are mostly one text, and its cuts are then the same. Prompts are independent: an
engine process for each processor, with one thread, computes its share of them.

Two readings of "the uninterrupted run", since a prompt whose beginning a slot happens to have (the chat
template's) is computed in other batches than one from nothing, and rounds differently:
``plain``  a request that asked for nothing, in a slot that has something else but for that beginning
``exact``  one that asked to be exact: it is computed from nothing, whatever its slot has
A run in a slot that has nothing (a fresh engine) is both, and is counted apart as ``plain, fresh``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
from typing import Any, NamedTuple

import msgspec
import uvloop

from benchmarks import table
from benchmarks.engine import VOCABULARY
from headrace.domain.delta import Delta, Prefix
from headrace.domain.request import Message, Request, Sampling
from headrace.engine_building import EngineBuilder
from headrace.engines.connection import at_once
from headrace.engines.engine import Engine, Work
from headrace.settings.model import EMBEDDED
from headrace.settings.tree import Server, Settings

CUTS = (0.25, 0.5, 0.75)
KINDS = ("plain, fresh", "plain", "exact")
SUBJECTS = VOCABULARY.split()


class Continued(NamedTuple):
    """``lost``: tokens missing (positive) or too many (negative). ``equal``: the uninterrupted text."""

    lost: int
    equal: bool


def request(number: int, tokens: int) -> Request:
    draw = random.Random(number)
    subject, place = draw.sample(SUBJECTS, 2)
    question = f"Tell me in detail how a {subject} and a {place} belong together, number {number}."
    return Request(
        model=EMBEDDED.name,
        kind="chat",
        messages=(Message(role="user", content=question),),
        sampling=Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True),
        stream=True,
    )


def prefix(deltas: list[Delta], share: float) -> Prefix:
    """What had been delivered at the cut: whole deltas, the last of them with text."""
    kept = deltas[: max(1, int(len(deltas) * share))]
    while kept and not kept[-1].text:
        kept.pop()
    ids = tuple(token for delta in kept for token in delta.token_ids)
    return Prefix("".join(delta.text for delta in kept), ids)


async def forget(engine: Engine) -> None:
    """Have the slot compute something else: of another chat it keeps the template's beginning at most."""
    other = Message(role="user", content="River.")
    sampling = Sampling(max_tokens=1, temperature=0.0)
    await engine.infer(Work(Request(EMBEDDED.name, "chat", (other,), sampling=sampling)))


async def forget_all(engine: Engine) -> None:
    """Have the slot compute something that shares not even the chat template's beginning."""
    sampling = Sampling(max_tokens=1, temperature=0.0)
    other = Request(EMBEDDED.name, "completion", prompts=("Nothing " * 9,), sampling=sampling)
    await engine.infer(Work(other))


Answer = tuple[str, int]
"""Text and number of tokens that a run produced."""


async def answer(engine: Engine, work: Work) -> Answer:
    """Run to the end."""
    deltas, outcome = await engine.infer(work)
    return "".join(delta.text for delta in deltas), outcome.usage.completion_tokens


async def whole(engine: Engine, asked: Request, kind: str) -> list[Delta]:
    """The uninterrupted run, of one of the kinds that others are compared with."""
    await (forget_all(engine) if kind == "plain, fresh" else forget(engine))
    deltas, _ = await engine.infer(Work(asked, exact=kind == "exact"))
    return deltas


async def cuts_of(
    engine: Engine, asked: Request, deltas: list[Delta], exact: dict[Prefix, Answer] | None
) -> list[Continued]:
    """A run gone on with from each cut. ``exact``: answers of that mode that are known; None: ``fast``."""
    text = "".join(delta.text for delta in deltas)
    made = sum(len(delta.token_ids) for delta in deltas)
    found = []
    for share in CUTS:
        cut = prefix(deltas, share)
        result = exact.get(cut) if exact is not None else None
        if result is None:
            await forget(engine)
            result = await answer(engine, Work(asked, (cut,), exact=exact is not None))
            if exact is not None:
                exact[cut] = result
        rest, more = result
        found.append(Continued(made - len(cut.token_ids) - more, cut.text + rest == text))
    return found


Found = dict[str, list[Continued]]
"""By mode and what the whole answer was."""


async def measure(engine: Engine, numbers: range, tokens: int) -> Found:
    found: Found = {}
    for number in numbers:
        asked = request(number, tokens)
        exact: dict[Prefix, Answer] = {}
        for kind in KINDS:
            deltas = await whole(engine, asked, kind)
            for mode, known in (("fast", None), ("exact", exact)):
                results = await cuts_of(engine, asked, deltas, known)
                found.setdefault(f"{mode} after {kind}", []).extend(results)
    return found


async def run(numbers: range, tokens: int) -> Found:
    """Of these prompts, on an engine of their own."""
    with tempfile.TemporaryDirectory() as folder:
        model = msgspec.structs.replace(EMBEDDED, slots=1, batch_threads=1)
        settings = Settings(server=Server(state_dir=folder), models=(model,))
        (replica,) = EngineBuilder(settings, at_once).replicas(model)
        engine = replica.engine
        try:
            await engine.load()
            return await measure(engine, numbers, tokens)
        finally:
            await engine.close()


async def run_all(arguments: argparse.Namespace) -> Found:
    engines = arguments.engines
    shares = [range(first, arguments.prompts, engines) for first in range(engines)]
    found: Found = {}
    for part in await asyncio.gather(*(run(share, arguments.tokens) for share in shares)):
        for name, results in part.items():
            found.setdefault(name, []).extend(results)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=48)
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--engines", type=int, default=cpus, help="processes beside each other")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run_all(arguments))
    rows: list[list[Any]] = [
        [
            mode,
            len(results),
            sum(abs(one.lost) for one in results),
            f"{100 * sum(one.equal for one in results) / len(results):.1f} %",
        ]
        for mode, results in found.items()
    ]
    head = ["gone on with", "continuations", "tokens lost or repeated", "texts equal"]
    title = f"Continuation of {arguments.prompts} prompts at {len(CUTS)} cuts"
    table.show(title, head, rows, json_too=found)


if __name__ == "__main__":
    main()
