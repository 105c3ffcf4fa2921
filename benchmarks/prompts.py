"""Prompts in mid-stream at the embedded model: what is computed again, and when the event is seen.

``again``  tokens that the engine had computed already and computes once more: those of the first prompt and
           of what was said, less those that its cache had. A count, the same on a busy machine.
``new``    tokens of the added message and of the template around it, which nobody had computed.
``delay``  from sending ``POST …/prompts`` until another client's stream shows its ``prompt`` event, one
           prompt after the other, while the model answers. Beside it the server's own CPU time a prompt (its
           engine process's is not in it), which holds on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from benchmarks import table
from benchmarks.engine import VOCABULARY
from benchmarks.headrace import KEY, Server
from headrace.domain.delta import Delta, Outcome, Prefix, Turn
from headrace.domain.errors import HeadraceError
from headrace.domain.request import Message, Request, Sampling
from headrace.engine_building import EngineBuilder
from headrace.engines.connection import at_once
from headrace.engines.engine import Engine, Work
from headrace.settings.model import EMBEDDED
from headrace.settings.tree import Server as ServerSettings
from headrace.settings.tree import Settings

CUTS = (4, 32, 128)
"""Tokens after which the prompt comes."""
HINT = Message("user", "Shorter, please.")
SUBJECTS = VOCABULARY.split()


class Cut:
    """The sink of a run that is left after ``count`` deltas."""

    def __init__(self, count: int) -> None:
        self.seen: list[Delta] = []
        self.enough = asyncio.Event()
        self._count = count

    def deltas(self, deltas: list[Delta]) -> None:
        self.seen += deltas
        if len(self.seen) >= self._count:
            self.enough.set()

    def prefill(self, done: int, total: int) -> None:
        """Of no interest."""

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self.enough.set()

    def failed(self, error: HeadraceError) -> None:
        raise error


class Again(NamedTuple):
    """Tokens: known to the engine before the prompt, of these computed again, new with it."""

    known: int
    again: int
    new: int


async def prompt_at(engine: Engine, number: int, cut: int) -> Again:
    """Ask, add the hint after ``cut`` tokens, and see what its run computes."""
    subject, place = random.Random(number).sample(SUBJECTS, 2)
    question = f"Tell me in detail how a {subject} and a {place} belong together, number {number}."
    sampling = Sampling(max_tokens=cut + 64, temperature=0.0, ignore_eos=True)
    asked = Request(EMBEDDED.name, "chat", (Message("user", question),), sampling=sampling)
    sink = Cut(cut)
    run = engine.stream_infer(Work(asked), sink)
    await sink.enough.wait()
    run.cancel()
    ids = tuple(one for delta in sink.seen if delta.text for one in delta.token_ids)
    said = Prefix("".join(delta.text for delta in sink.seen), ids, len(ids))
    one = msgspec.structs.replace(asked, sampling=Sampling(max_tokens=1, temperature=0.0))
    _, more = await engine.infer(Work(one, (Prefix("", ()),), turns=(Turn(said, HINT),)))
    _, alone = await engine.infer(Work(one))  # only to know how long the first prompt is
    known = alone.usage.prompt_tokens + len(ids)
    return Again(known, known - more.usage.cached_tokens, more.usage.prompt_tokens - known)


async def computed(chats: int) -> dict[int, list[Again]]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(server=ServerSettings(state_dir=folder), models=(EMBEDDED,))
        (replica,) = EngineBuilder(settings, at_once).replicas(EMBEDDED)
        engine = replica.engine
        try:
            await engine.load()
            numbers = range(chats)
            return {cut: [await prompt_at(engine, n, cut) for n in numbers] for cut in CUTS}
        finally:
            await engine.close()


HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


class Watcher(threading.Thread):
    """A client that reads a generation's events and notes when it saw each."""

    def __init__(self, port: int, generation: str) -> None:
        super().__init__(daemon=True)
        self._connection = HTTPConnection("127.0.0.1", port, timeout=300)
        path = f"/v1/generations/{generation}/events"
        self._connection.request("GET", path, headers={**HEADERS, "accept": "text/event-stream"})
        self._stream = self._connection.getresponse()
        self.seen: dict[int, float] = {}
        self.prompts: list[str] = []
        self.tokens = 0
        self.over = False
        self.news = threading.Condition()

    def run(self) -> None:
        for line in self._stream:
            if not line.startswith(b"data: "):
                continue
            now = time.perf_counter()
            event: dict[str, Any] = json.loads(line[6:])
            with self.news:
                self.seen[event["seq"]] = now
                self.tokens += event["type"] == "token"
                self.over = event["type"] in ("finish", "error")
                if event["type"] == "prompt":
                    self.prompts.append(event["payload"]["content"])
                self.news.notify_all()

    def wait_for(self, tokens: int) -> None:
        with self.news:
            self.news.wait_for(lambda: self.tokens >= tokens or self.over, 60)


class Delays(NamedTuple):
    """``ms``: of each prompt; ``in_order``: whether the log has all, in order; CPU in ms a prompt."""

    ms: list[float]
    in_order: bool
    cpu_ms: float


def delays(port: int, pid: int, count: int) -> Delays:
    """``count`` prompts into one generation, each after two more tokens."""
    first = HTTPConnection("127.0.0.1", port, timeout=300)
    body = {
        "model": EMBEDDED.name,
        "messages": [{"role": "user", "content": "Count from one to a thousand in words."}],
        "stream": True,
        "max_tokens": 1500,
        "ignore_eos": True,
    }
    first.request("POST", "/v1/chat/completions", json.dumps(body), HEADERS)
    stream = first.getresponse()
    generation = stream.headers["x-generation-id"]
    threading.Thread(target=stream.read, daemon=True).start()
    watcher = Watcher(port, generation)
    watcher.start()
    asking = HTTPConnection("127.0.0.1", port, timeout=60)
    path = f"/v1/generations/{generation}/prompts"
    told, sent = [], []
    spent_s = 0.0
    for number in range(count):
        watcher.wait_for(watcher.tokens + 2)
        text = f"Go on, {number}."
        before = own_cpu_s(pid)
        sent.append(time.perf_counter())
        asking.request("POST", path, json.dumps({"role": "user", "content": text}), HEADERS)
        answer = asking.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"prompt {number}: {found}")
        spent_s += own_cpu_s(pid) - before
        told.append(found["prompts"][0]["seq"])
    with watcher.news:
        watcher.news.wait_for(lambda: told[-1] in watcher.seen, 60)
    asking.request("POST", f"/v1/generations/{generation}/cancel", headers=HEADERS)
    asking.getresponse().read()
    ms = [1000 * (watcher.seen[seq] - at) for seq, at in zip(told, sent, strict=True)]
    in_order = watcher.prompts == [f"Go on, {number}." for number in range(count)]
    return Delays(ms, in_order, 1000 * spent_s / count)


def own_cpu_s(pid: int) -> float:
    """CPU seconds of the server process alone."""
    tasks = (Path("/proc") / str(pid) / "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measured_delays(count: int) -> Delays:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), models="", core=0)
        try:
            server.await_ready(300)
            return delays(server.port, server.child.pid, count)
        finally:
            server.child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(computed(arguments.chats))
    rows = [
        [
            cut,
            f"{statistics.median(one.known for one in cases):g}",
            f"{statistics.median(one.again for one in cases):g}",
            max(one.again for one in cases),
            f"{statistics.median(one.new for one in cases):g}",
        ]
        for cut, cases in found.items()
    ]
    head = ["said", "known tokens", "computed again", "at most", "new tokens"]
    title = f"A prompt into {arguments.chats} answers"
    table.show(title, head, rows, json_too=found)
    seen = measured_delays(arguments.prompts)
    ordered = sorted(seen.ms)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    row = [len(ordered), statistics.median(ordered), p99, seen.cpu_ms, str(seen.in_order)]
    head = ["prompts", "delay p50 ms", "p99 ms", "server CPU ms a prompt", "in order"]
    table.show("Prompt to event, one generation", head, [row], json_too=seen)


if __name__ == "__main__":
    main()
