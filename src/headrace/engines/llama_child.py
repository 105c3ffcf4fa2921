"""The llama.cpp engine process: ``python -m headrace.engines.llama_child``.

Reads one JSON line of :class:`ChildOptions` from standard input, serves llama.cpp's HTTP on a free
loopback port, and says so with one JSON line on standard output. llama.cpp's own messages go to standard
error.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from headrace.engines.own_process import end_with, say, take_over_stdout

Pooling = Literal["mean", "cls", "last"]


class ChildOptions(msgspec.Struct, frozen=True):
    """What llama.cpp is told. ``context``: tokens of one slot. ``batch``: tokens computed between two
    looks at whether a request was cancelled, ``ubatch`` of them at once. ``http_threads``:
    connections served at once. ``parent``: process id of the server. ``key``: what every request must
    carry, so that nobody else on the machine computes here. ``embedding``: it answers for embeddings as well,
    whose ``pooling`` the model says where it is empty. ``spare``: it takes only what no other process wants."""

    model: str
    parent: int
    key: str = ""
    context: int = 4096
    slots: int = 4
    batch: int = 128
    ubatch: int = 128
    threads: int = 1
    batch_threads: int = 2
    gpu_layers: int = 0
    http_threads: int = 8
    unified: bool = False
    cache_mib: int = 0
    chat_template: str = ""
    mmproj: str = ""
    verbosity: int = 2
    embedding: bool = False
    pooling: Pooling | Literal[""] = ""
    spare: bool = False


def main() -> None:
    """Serve until the parent is gone or the process is told to end."""
    control = take_over_stdout()
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildOptions)
    end_with(options.parent)
    try:
        if options.spare:
            _stand_back()
        server = _serve(options)
    except Exception as error:  # noqa: BLE001  the one boundary of this process: say why, then end
        say(control, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    say(control, {"port": int(server.listening_address.rpartition(":")[2])})
    signal.pause()


def _stand_back() -> None:
    """All threads from now on run where no others want to; where memory is short, this process goes first. Raises
    ``RuntimeError`` where the system forbids it."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as error:
        raise RuntimeError(f"it may not give way to other processes: {error}") from error


def _serve(options: ChildOptions) -> Any:
    """A running llama-server. Raises what xllamacpp raises for a model it cannot load."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.port = 0
    params.n_parallel = options.slots
    params.n_ctx = options.context if options.unified else options.context * options.slots
    params.kv_unified = options.unified
    params.n_batch = options.batch
    params.n_ubatch = options.ubatch
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.batch_threads
    params.n_gpu_layers = options.gpu_layers
    params.n_threads_http = options.http_threads
    params.cache_ram_mib = options.cache_mib
    params.verbosity = options.verbosity
    params.endpoint_slots = params.endpoint_metrics = True
    params.fit_params = params.ui = False
    if options.key:
        params.api_keys = [options.key]
    if options.chat_template:
        params.chat_template = options.chat_template
    if options.embedding:
        params.embedding = True
    if options.pooling:
        kind = f"LLAMA_POOLING_TYPE_{options.pooling.upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, kind)
    if options.mmproj:
        params.mmproj.path = options.mmproj
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
