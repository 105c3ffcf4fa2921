"""``python -m benchmarks.steps``: how many steps the way of a request, and of a streamed event, has.

Counts what the interpreter executes on the event loop's thread, by function: bytecodes, calls of Python
functions, calls of C functions. Unlike times these are the same on a busy machine and on a quiet one, so a
change shows at once. The server runs in this process, with everything switched on, in front of the mock
engine; what timers do in between is left out by measuring twice and taking the difference.

request  one chat request that is not streamed
event    one event of a stream, each its own wake-up
stream   one stream of 40 events as a whole

``--tracing 0.01`` measures each without traces, and with them for requests that are recorded and for such that
are not, and says what that share of recorded ones costs on average.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import uvloop

from benchmarks import table
from benchmarks.child import free_port
from benchmarks.collector import collecting
from benchmarks.headrace import HOOKS, KEY, MOCK_MODEL, SERVER
from benchmarks.load import Mock, chat_body
from headrace.app import App
from headrace.cli.options import loaded

WARM = 50
"""Requests before the measured ones: heads are known then, connections kept."""


class Steps:
    """Counts of one thread, by function."""

    def __init__(self) -> None:
        self.bytecodes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.c_calls: Counter[str] = Counter()

    def begin(self) -> None:
        """On the thread to be counted."""
        gc.disable()
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def end(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()

    def minus(self, other: Steps) -> Steps:
        rest = Steps()
        for mine, theirs, into in (
            (self.bytecodes, other.bytecodes, rest.bytecodes),
            (self.calls, other.calls, rest.calls),
            (self.c_calls, other.c_calls, rest.c_calls),
        ):
            into.update(mine)
            into.subtract(theirs)
        return rest

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        self.calls[_name(frame.f_code)] += 1
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self.bytecodes[_name(frame.f_code)] += 1
        return self._step

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "c_call":
            self.c_calls[_name(frame.f_code)] += 1


def _name(code: CodeType) -> str:
    return f"{code.co_filename.rpartition('/headrace/')[2]}:{code.co_qualname}"


class Client:
    """A client that asks for one thing again and again on one connection."""

    def __init__(self, port: int, *, stream: bool, tokens: int) -> None:
        body = json.dumps(chat_body(stream=stream, tokens=tokens)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._complete: Callable[[bytes], bool] = _chunks_end if stream else _body_ends
        self._socket = socket.create_connection(("127.0.0.1", port))

    def ask(self) -> None:
        """One request, to the end of its answer."""
        self._socket.sendall(self._request)
        answer = b""
        while not self._complete(answer):
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the server closed the connection")
            answer += received


def _chunks_end(answer: bytes) -> bool:
    return answer.endswith(b"0\r\n\r\n")


def _body_ends(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


@contextlib.contextmanager
def tracing(sampler: str) -> Iterator[None]:
    """Servers made inside export spans; ``sampler`` as ``OTEL_TRACES_SAMPLER`` has it; empty: they do not."""
    said = collecting(sampler) if sampler else {}
    os.environ.update(said)
    try:
        yield
    finally:
        for name in said:
            del os.environ[name]


def measured(*, stream: bool, tokens: int, times: int) -> Steps:
    """The steps of ``times`` requests, one after the other, in a server of its own."""
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock:
        folder, port = Path(name), free_port()
        config = folder / "headrace.toml"
        server = SERVER.format(port=port, ops_port=free_port(), key=KEY, folder=folder, grpc="")
        models = MOCK_MODEL.format(mock_port=mock.port)
        config.write_text(server + HOOKS.format(folder=folder) + models)
        gap_ms = 4 if stream else 0
        mock.config(first_ms=gap_ms, gap_ms=gap_ms)
        steps = Steps()
        app = App(loaded(str(config), {}).settings)

        async def serve() -> None:
            loop = asyncio.get_running_loop()

            def on_the_loop(call: Callable[[], None]) -> None:
                done = threading.Event()
                loop.call_soon_threadsafe(call)
                loop.call_soon_threadsafe(done.set)
                done.wait()

            def drive() -> None:
                _await_ready(app)
                client = Client(port, stream=stream, tokens=tokens)
                for _ in range(3 if stream else WARM):
                    client.ask()
                on_the_loop(steps.begin)
                for _ in range(times):
                    client.ask()
                on_the_loop(steps.end)
                loop.call_soon_threadsafe(app.stopping.set)

            thread = threading.Thread(target=drive, daemon=True)
            thread.start()
            await app.run()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    return steps


def _await_ready(app: App) -> None:
    deadline = time.monotonic() + 30
    while not (app.front is not None and app.service.readiness()[0]):
        if time.monotonic() > deadline:
            raise RuntimeError("the server did not become ready")
        time.sleep(0.02)


SCENARIOS: dict[str, Callable[[], tuple[Steps, int]]] = {
    "request": lambda: (
        measured(stream=False, tokens=64, times=12).minus(
            measured(stream=False, tokens=64, times=2)
        ),
        10,
    ),
    "event": lambda: (
        measured(stream=True, tokens=40, times=1).minus(measured(stream=True, tokens=20, times=1)),
        20,
    ),
    "stream": lambda: (
        measured(stream=True, tokens=40, times=3).minus(measured(stream=True, tokens=40, times=1)),
        2,
    ),
}
USUAL = ("request", "event")
SAMPLERS = {"": "without traces", "always_off": "not recorded", "always_on": "recorded"}


def compare(scenarios: list[str], share: float) -> None:
    """What traces cost where ``share`` of the requests is recorded."""
    rows = []
    for scenario in scenarios:
        counts = {}
        for sampler, said in SAMPLERS.items():
            with tracing(sampler):
                steps, times = SCENARIOS[scenario]()
            counts[sampler] = [
                sum(counter.values()) / times
                for counter in (steps.bytecodes, steps.calls, steps.c_calls)
            ]
            rows.append([f"{scenario}, {said}", *counts[sampler]])
        off, on = counts["always_off"], counts["always_on"]
        mean = [(1 - share) * one + share * other for one, other in zip(off, on, strict=True)]
        rise = 100 * (mean[0] / counts[""][0] - 1)
        rows.append([f"{scenario}, {share:.0%} recorded: {rise:+.2f} %", *mean])
    head = ["way of one", "bytecodes", "Python calls", "C calls"]
    table.show("Steps on the event loop's thread, with traces", head, rows, json_too=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default=",".join(USUAL), help="scenarios, by comma")
    parser.add_argument("--functions", type=int, default=0, help="show the most costly functions")
    parser.add_argument("--tracing", type=float, default=None, help="share that is recorded")
    arguments = parser.parse_args()
    if arguments.tracing is not None:
        compare(arguments.only.split(","), arguments.tracing)
        return
    rows = []
    for scenario in arguments.only.split(","):
        steps, times = SCENARIOS[scenario]()
        counters = (steps.bytecodes, steps.calls, steps.c_calls)
        rows.append([scenario, *(sum(counter.values()) / times for counter in counters)])
        for name, _ in steps.bytecodes.most_common(arguments.functions):
            rows.append([name, *(counter[name] / times for counter in counters)])
    head = ["way of one", "bytecodes", "Python calls", "C calls"]
    table.show("Steps on the event loop's thread", head, rows, json_too=None)


if __name__ == "__main__":
    main()
