"""`make bench-engine`: the embedded engine through the whole server, and the same process asked directly.

Rounds are interleaved: at each level of concurrency the server, the engine's own process and
llama-cpp-python's server (same file, same threads) answer the same prompts in turn, and the order
alternates. A prompt's first word is new each time, so that no cached prefix helps anybody. Shown: tokens
a second, and the median ratio to the engine's own process with its 95 % interval.
"""

from __future__ import annotations

import argparse
import random
import secrets
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import peers, table
from benchmarks.child import Child, free_port
from benchmarks.embedded import EmbeddedServer, Endpoint
from benchmarks.load import Load, Report

VOCABULARY = """
water wheel channel stone river gate miller grain morning light winter bridge valley road house garden
table window letter answer question story number machine engine token stream paper colour forest mountain
village market teacher student friend music summer evening island harbour
"""
PROMPT_WORDS = 70


class Target:
    """Something that answers chat completions with the model. ``obeys``: it takes ``ignore_eos``, so every
    answer has all its tokens; of another the messages with content are counted."""

    def __init__(self, name: str, port: int, headers: tuple[str, ...], obeys: bool = True) -> None:
        self.name, self.port, self.headers, self.obeys = name, port, headers, obeys

    def rate(self, folder: Path, bodies: list[dict[str, Any]], level: int, tokens: int) -> float:
        """Tokens a second of all answers, at ``level`` requests at once."""
        options = {"connections": level, "seconds": 600, "requests": len(bodies)}
        report: Report = Load(folder, self.port, bodies, self.headers, options).result()
        if report["failed"] or report["incomplete"]:
            print(f"! {self.name} at {level}: {report['failed']} failed, {report['error']}")
        made = report["ok"] * tokens if self.obeys else report["tokens"]
        return float(made / report["seconds"])


def prompts(seed: int, count: int, tokens: int) -> list[dict[str, Any]]:
    """The same words for the same seed, behind a beginning that is never the same."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = " ".join(draw.choices(VOCABULARY.split(), k=PROMPT_WORDS))
        found.append(
            {
                "model": "smollm2-135m",
                "messages": [{"role": "user", "content": f"{secrets.token_hex(8)} {words}"}],
                "max_tokens": tokens,
                "temperature": 0,
                "stream": True,
                "ignore_eos": True,
            }
        )
    return found


def llama_cpp_python(folder: Path, engine: Endpoint, threads: int) -> tuple[Target, Child]:
    """Its server on the same file. ``interrupt_requests`` off: else a new request ends the one before it."""
    port = free_port()
    python = peers.environment(peers.LLAMA_CPP_PYTHON) / "bin/python"
    command = [
        str(python), "-m", "llama_cpp.server", "--model", engine.model_path, "--port", str(port),
        "--n_ctx", "4096", "--n_threads", str(threads), "--n_threads_batch", str(threads * 2),
        "--interrupt_requests", "false",
    ]  # fmt: skip
    child = Child(command, folder / "llama-cpp-python.log", core="0-1")
    child.await_http(port, "/v1/models", 60)
    return Target("llama-cpp-python", port, (), obeys=False), child


def run(arguments: argparse.Namespace) -> tuple[str, dict[str, dict[int, list[float]]]]:
    """The model's file, and tokens a second by target and level."""
    figures: dict[str, dict[int, list[float]]] = {}
    levels = [int(level) for level in arguments.levels.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = EmbeddedServer(folder)
        children = [server.child]
        try:
            server.await_ready(300)
            engine = server.endpoint()
            targets = [
                Target("Headrace", server.port, server.gateway.headers),
                Target("its llama-server directly", engine.port, engine.headers),
            ]
            if not arguments.no_peer:
                peer, child = llama_cpp_python(folder, engine, arguments.threads)
                targets.append(peer)
                children.append(child)
            for level in levels:
                for number in range(arguments.pairs + 1):
                    count = max(arguments.requests, level)
                    for target in targets if number % 2 else targets[::-1]:
                        bodies = prompts(level * 1000 + number, count, arguments.tokens)
                        rate = target.rate(folder, bodies, level, arguments.tokens)
                        if number:  # the first round warms everything up
                            figures.setdefault(target.name, {}).setdefault(level, []).append(rate)
        finally:
            for child in children:
                child.stop()
    return Path(engine.model_path).name, figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--levels", default="1,8,32", help="requests at once, by comma")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=4, help="a run, at least one a connection")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of llama-cpp-python's decoding")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    file, figures = run(arguments)
    ours, direct = figures["Headrace"], figures["its llama-server directly"]
    rows: list[list[Any]] = []
    for level in ours:
        ratios = [a / b for a, b in zip(ours[level], direct[level], strict=True)]
        low, high = table.interval(ratios) or (min(ratios), max(ratios))
        peer = figures.get("llama-cpp-python", {}).get(level)
        rows.append(
            [
                level,
                table.median(ours[level]),
                table.median(direct[level]),
                f"{table.median(ratios):.3f} ({low:.3f} to {high:.3f})",
                table.median(peer) if peer else None,
            ]
        )
    head = ["at once", "Headrace tok/s", "directly tok/s", "ratio (95 %)", "llama-cpp-python tok/s"]
    title = f"{file}, {PROMPT_WORDS} words in, {arguments.tokens} tokens out"
    table.show(title, head, rows, json_too=figures)


if __name__ == "__main__":
    main()
