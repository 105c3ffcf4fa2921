"""The embedded model as ONNX beside llama.cpp: is the greedy text the same, and how fast is each?

Both engines answer the same chats, greedily, token by token, each in its own process and one after the other. Their
vocabulary is the same, so answers are compared by token ids: how many agree until the first that differs, and how
many answers are equal to their end. Then each answers alone and four at once, for tokens a second.

What differs is how they compute: the ONNX model has llama.cpp's Q8_0 weights dequantised and multiplies them as
float32, llama.cpp also quantises what it multiplies them with to eight bits. Where two tokens are about as likely the
greedy choice tips over, and from there on the texts are different ones. So of the first token that differs is told how
far llama.cpp itself thought the other's token from its own: the difference of their log probabilities, 0 for a tie.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks import table
from headrace.domain.request import Message, Request, Sampling
from headrace.engine_building import EngineBuilder
from headrace.engines.connection import at_once
from headrace.engines.engine import Engine, Work
from headrace.settings.model import EMBEDDED, Model
from headrace.settings.tree import Server, Settings

QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Write a short poem about a river.",
    "Explain what a hash table is to a child.",
    "List three animals that live in the sea.",
    "How do I boil an egg?",
    "What is 17 plus 25?",
    "Translate 'good morning' into Spanish.",
    "Who wrote Romeo and Juliet?",
    "Give me a reason to learn Python.",
    "What is the difference between weather and climate?",
    "Tell me a story about a lighthouse.",
)


ALTERNATIVES = 20

Thought = dict[str, float]
"""Log probabilities of the likeliest tokens, by their texts."""


class Answers(NamedTuple):
    """Of one engine. ``texts``: of each token; ``thoughts``: at each token, of the engine that tells them.
    ``prompts``: tokens of each question. ``rates``: tokens a second, by how many answers were under way."""

    ids: list[tuple[int, ...]]
    texts: list[list[str]]
    thoughts: list[list[Thought]]
    prompts: list[int]
    rates: dict[int, float]


def request(
    question: str, tokens: int, *, to_the_end: bool = False, thoughts: bool = False
) -> Request:
    alternatives = ALTERNATIVES if thoughts else None
    sampling = Sampling(
        max_tokens=tokens, temperature=0.0, ignore_eos=to_the_end, logprobs=alternatives
    )
    return Request("m", "chat", (Message("user", question),), sampling=sampling)


async def answered(engine: Engine, asked: Request) -> tuple[int, ...]:
    deltas, _ = await engine.infer(Work(asked))
    return tuple(token for delta in deltas for token in delta.token_ids)


async def thought(engine: Engine, asked: Request) -> list[Thought]:
    deltas, _ = await engine.infer(Work(asked))
    told = [one for delta in deltas for one in delta.logprobs or ()]
    return [{text: value for text, value, _ in one.top} for one in told]


async def rate(engine: Engine, beside: int, tokens: int) -> float:
    asked = [request(question, tokens, to_the_end=True) for question in QUESTIONS[:beside]]
    began = time.perf_counter()
    made = await asyncio.gather(*(answered(engine, one) for one in asked))
    return sum(map(len, made)) / (time.perf_counter() - began)


async def measure(model: Model, tokens: int) -> Answers:
    """Of an engine as the server builds it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(server=Server(state_dir=folder), models=(model,))
        (replica,) = EngineBuilder(settings, at_once).replicas(model)
        engine = replica.engine
        try:
            await engine.load()
            asked = [request(question, tokens) for question in QUESTIONS]
            ids = [await answered(engine, one) for one in asked]
            texts = [[await engine.detokenize((token,)) for token in one] for one in ids]
            thoughts = []
            if model.engine == "llama":
                telling = [request(question, tokens, thoughts=True) for question in QUESTIONS]
                thoughts = [await thought(engine, one) for one in telling]
            prompts = [await engine.count_prompt(one) for one in asked]
            rates = {beside: await rate(engine, beside, tokens) for beside in (1, 4)}
            return Answers(ids, texts, thoughts, prompts, rates)
        finally:
            await engine.close()


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Tokens until the first that differs."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def gap(llama: Answers, onnx: Answers, at: int, agree: int) -> str:
    """At the first token of question ``at`` that differs."""
    if agree >= min(len(llama.ids[at]), len(onnx.ids[at])):
        return "one ends" if llama.ids[at] != onnx.ids[at] else ""
    thought = llama.thoughts[at][agree]
    own, other = llama.texts[at][agree], onnx.texts[at][agree]
    if own not in thought or other not in thought:
        return "?"
    return f"{thought[own] - thought[other]:.2f} ({own!r}, {other!r})"


def show(llama: Answers, onnx: Answers) -> None:
    if llama.prompts != onnx.prompts:
        raise SystemExit(f"prompts differ: {llama.prompts} and {onnx.prompts} tokens")
    agreeing = [common(*pair) for pair in zip(llama.ids, onnx.ids, strict=True)]
    equal = [one == other for one, other in zip(llama.ids, onnx.ids, strict=True)]
    rows = [
        [question, len(llama.ids[at]), agreeing[at], gap(llama, onnx, at, agreeing[at])]
        for at, question in enumerate(QUESTIONS)
    ]
    total = sum(map(len, llama.ids))
    rows.append(["all", total, sum(agreeing), f"{sum(equal)} of {len(equal)} are equal"])
    head = ["question", "tokens of llama.cpp", "agree from the beginning", "how close it was"]
    table.show("Greedy answers", head, rows, json_too=rows)
    speeds = [
        [f"{beside} at once", f"{llama.rates[beside]:.1f}", f"{onnx.rates[beside]:.1f}"]
        for beside in llama.rates
    ]
    table.show(
        "Tokens a second", ["answers", "llama.cpp", "ONNX Runtime GenAI"], speeds, json_too=speeds
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what `headrace models convert` wrote")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    source = f"file:{arguments.folder.absolute()}/genai_config.json"
    onnx = Model(name="onnx", engine="genai", source=source, slots=4, threads=cpus)
    llama = msgspec.structs.replace(EMBEDDED, slots=4)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        show(*(runner.run(measure(model, arguments.tokens)) for model in (llama, onnx)))


if __name__ == "__main__":
    main()
