"""Files of requests: what they need of memory, how much of the engine's best they get, and what they cost others.

``memory``  a job of 5,000,000 rows over answers that come at once, files and results without a server: the process's
            peak memory, and rows a second
``served``  a job of a whole server whose scripted engine answers at once, every answer kept in its store: the same
``engine``  the same real prompts (questions that people asked on Quora, ``semcache`` of ``--data``) straight to the
            embedded engine's own process, as many at once as fill its slots without a gap, and as a job of the whole
            server: tokens a second, and the ratio. The job's own process is loaded by a row before
``live``    a request a second to the same server, without a job and while one runs: p50 and p99 of the first token
``prefix``  rows of few long beginnings in random order: prompt tokens that the engine had to compute, in the order of
            the file and as a job runs them
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import machine, table
from benchmarks.embedded import EmbeddedServer, Endpoint
from benchmarks.engine import VOCABULARY
from benchmarks.headrace import KEY, REPOSITORY, Server

CHAT = "/v1/chat/completions"
MODEL = "smollm2-135m"
SUBJECTS = VOCABULARY.split()
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
EARLY = 2
"""Requests that wait in the engine's own line, so that no slot idles between two."""
POLL_S = 0.25
"""Asking costs what is measured: the engine's threads have all cores, and wait for each other."""
AT_ONCE = {"slots": 512, "scripts": [{"tokens": ["A ", "short ", "answer."]}]}
SCRIPTED = """
[[models]]
name = "{model}"
engine = "scripted"
slots = 512
script = "{script}"
"""
BEGINNINGS = 4
BEGINNING_WORDS = 300


def question(number: int) -> str:
    """As the other benchmarks ask."""
    subject, place = random.Random(number).sample(SUBJECTS, 2)
    return f"Tell me in detail how a {subject} and a {place} belong together, number {number}."


def real(data: Path, count: int) -> list[str]:
    """So many different questions of people, in random order."""
    path = data / "semcache" / "qqp_10k_pairs.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    known = sorted({pair[side] for pair in pairs for side in ("text_a", "text_b")})
    return random.Random(1).sample(known, count)


def body(text: str, tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    sampling = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return {"model": MODEL, "messages": messages, **sampling, **more}


def call(port: int, method: str, path: str, data: Any = None, headers: Any = None) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path, data, {**HEADERS, **(headers or {})})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(said.decode())
        return json.loads(said)
    finally:
        connection.close()


def own_headers(engine: Endpoint) -> dict[str, str]:
    pairs = [line.split(": ", 1) for line in engine.headers]
    return {name.lower(): value for name, value in pairs}


class Batch:
    """A job at a server. ``bodies``: of its rows."""

    def __init__(self, port: int, bodies: list[dict[str, Any]]) -> None:
        self._port = port
        rows = b"\n".join(
            json.dumps({"custom_id": str(n), "url": CHAT, "body": one}).encode()
            for n, one in enumerate(bodies)
        )
        head = '--e\r\ncontent-disposition: form-data; name="{}"; filename="in"\r\n\r\n'
        form = head.format("purpose").encode() + b"batch\r\n" + head.format("file").encode() + rows
        kind = {"content-type": "multipart/form-data; boundary=e"}
        file = call(port, "POST", "/v1/files", form + b"\r\n--e--", kind)
        asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        self.id = call(port, "POST", "/v1/batches", json.dumps(asked))["id"]

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = call(self._port, "GET", f"/v1/batches/{self.id}")
        return found

    def end(self) -> dict[str, Any]:
        while (now := self.state())["status"] not in ("completed", "failed", "cancelled"):
            time.sleep(POLL_S)
        return now

    def cancel(self) -> None:
        call(self._port, "POST", f"/v1/batches/{self.id}/cancel")
        self.end()


def memory(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.jobs.large", str(arguments.rows), folder]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        took = time.monotonic() - began
    peak = int(done.stdout) / 1024
    print(f"{arguments.rows:,} rows: peak {peak:.0f} MB, {arguments.rows / took:,.0f} rows/s")


def served(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "script.json"
        script.write_text(json.dumps(AT_ONCE))
        models = SCRIPTED.format(model=MODEL, script=script)
        server = Server(Path(name), models, core="0-1", hooks="")
        try:
            server.await_ready()
            batch = Batch(server.port, [body(question(n), 8) for n in range(arguments.served)])
            began = time.monotonic()
            counts = batch.end()["request_counts"]
            took = time.monotonic() - began
            status = Path(f"/proc/{server.child.pid}/status").read_text()
        finally:
            server.child.stop(30)
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    rate = arguments.served / took
    print(f"served: {counts}, peak {int(peak.split()[1]) / 1024:.0f} MB, {rate:,.0f} rows/s")


def directly(engine: Endpoint, bodies: list[dict[str, Any]], level: int) -> float:
    """Tokens a second of the engine's own process, so many requests at once."""
    headers = own_headers(engine)

    def ask(one: dict[str, Any]) -> int:
        answer = call(engine.port, "POST", CHAT, json.dumps(one), headers)
        tokens: int = answer["usage"]["completion_tokens"]
        return tokens

    began = time.monotonic()
    with ThreadPoolExecutor(level) as pool:
        tokens = sum(pool.map(ask, bodies))
    return tokens / (time.monotonic() - began)


def as_job(port: int, bodies: list[dict[str, Any]]) -> float:
    began = time.monotonic()
    done = Batch(port, bodies).end()
    took = time.monotonic() - began
    if done["request_counts"]["failed"]:
        print("!", done)
    return float(done["usage"]["output_tokens"] / took)


def engine(arguments: argparse.Namespace, server: EmbeddedServer, endpoint: Endpoint) -> None:
    level = slots_of(server.port) + EARLY
    questions = real(arguments.data, arguments.prompts)
    ratios, rows = [], []
    spent = [0.0, 0.0]
    per_round = arguments.prompts // arguments.rounds
    for number in range(arguments.rounds):
        start = number * per_round
        texts = questions[start : start + per_round]
        bodies = [body(text, arguments.tokens) for text in texts]
        as_job(server.port, [body("Hello", 1)])
        ways = [
            lambda b=bodies: directly(endpoint, b, level),
            lambda b=bodies: as_job(server.port, b),
        ]
        figures = [0.0, 0.0]
        for way in (0, 1) if number % 2 else (1, 0):
            figures[way] = ways[way]()
        ratios.append(figures[1] / figures[0])
        spent = [before + 1 / one for before, one in zip(spent, figures, strict=True)]
        rows.append([str(number + 1), *(f"{one:.1f}" for one in figures), f"{ratios[-1]:.3f}"])
    count, median = per_round * arguments.rounds, statistics.median(ratios)
    in_all = spent[0] / spent[1]
    title = f"{count} prompts, {level} at once; ratio of rounds {median:.3f} (median), of all {in_all:.3f}"
    table.show(title, ["round", "directly, tokens/s", "as a job", "ratio"], rows, json_too=ratios)


def slots_of(port: int) -> int:
    return int(call(port, "GET", f"/v1/model_info?model={MODEL}")["slots"])


def first_token_ms(port: int, number: int) -> float:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    asked = body(question(10**6 + number), 16, stream=True)
    began = time.perf_counter()
    connection.request("POST", CHAT, json.dumps(asked), HEADERS)
    answer = connection.getresponse()
    first = 0.0
    for line in answer:
        if not first and b'"content":"' in line:
            first = time.perf_counter() - began
    connection.close()
    return first * 1000


def live(arguments: argparse.Namespace, server: EmbeddedServer) -> None:
    draw = random.Random(1)
    found: dict[str, list[float]] = {"without a job": [], "during a job": []}
    first_token_ms(server.port, 0)  # what only the first one waits for
    for number in range(arguments.rounds):
        for name, times in found.items():
            batch = None
            if name == "during a job":
                bodies = [body(question(n), 200) for n in range(500)]
                batch = Batch(server.port, bodies)
                while batch.state()["status"] != "in_progress":
                    time.sleep(0.05)
                time.sleep(2.0)  # all slots are taken by then
            for n in range(arguments.requests):
                times.append(first_token_ms(server.port, number * 1000 + n))
                time.sleep(draw.expovariate(1.0))
            if batch is not None:
                batch.cancel()
    rows = []
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=100)
        rows.append([name, f"{statistics.median(times):.0f}", f"{cuts[98]:.0f}", str(len(times))])
    table.show(
        "A live request", ["", "first token p50, ms", "p99, ms", "requests"], rows, json_too=found
    )


def alike(count: int, tokens: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    beginnings = [" ".join(draw.choices(SUBJECTS, k=BEGINNING_WORDS)) for _ in range(BEGINNINGS)]
    found = []
    for n in range(count):
        one = body(question(seed + n), tokens)
        system = {"role": "system", "content": draw.choice(beginnings)}
        found.append({**one, "messages": [system, *one["messages"]]})
    return found


def cached(port: int, done: dict[str, Any]) -> Iterator[int]:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    path = f"/v1/files/{done['output_file_id']}/content"
    connection.request("GET", path, headers=HEADERS)
    for line in connection.getresponse():
        usage = json.loads(line)["response"]["body"]["usage"]
        yield usage["prompt_tokens_details"]["cached_tokens"]


def prefix(arguments: argparse.Namespace, server: EmbeddedServer, endpoint: Endpoint) -> None:
    bodies = alike(arguments.prompts, arguments.tokens, 7)
    headers = own_headers(endpoint)

    def ask(one: dict[str, Any]) -> tuple[int, int]:
        usage = call(endpoint.port, "POST", CHAT, json.dumps(one), headers)["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    began = time.monotonic()
    with ThreadPoolExecutor(slots_of(server.port)) as pool:
        counts = list(pool.map(ask, bodies))
    file_s = time.monotonic() - began
    prompt = sum(count for count, _ in counts)
    began = time.monotonic()
    done = Batch(server.port, bodies).end()
    job_s = time.monotonic() - began
    had = sum(cached(server.port, done))
    rows = [
        ["in the file's order", f"{prompt - sum(hit for _, hit in counts):,}", f"{file_s:.1f}"],
        ["as a job", f"{done['usage']['input_tokens'] - had:,}", f"{job_s:.1f}"],
    ]
    title = f"{prompt:,} prompt tokens in {len(bodies)} rows of {BEGINNINGS} beginnings"
    table.show(title, ["", "prompt tokens computed", "seconds"], rows, json_too=rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="memory,served,engine,live,prefix")
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the large job")
    parser.add_argument("--served", type=int, default=400_000, help="rows of a whole server's")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20, help="live ones, a round")
    arguments = parser.parse_args()
    wanted = set(arguments.only.split(","))
    print(machine.description())
    if "memory" in wanted:
        memory(arguments)
    if "served" in wanted:
        served(arguments)
    if wanted <= {"memory", "served"}:
        return
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        try:
            endpoint = server.endpoint()
            if "engine" in wanted:
                engine(arguments, server, endpoint)
            if "live" in wanted:
                live(arguments, server)
            if "prefix" in wanted:
                prefix(arguments, server, endpoint)
        finally:
            server.child.stop()


if __name__ == "__main__":
    main()
